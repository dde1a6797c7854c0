"""Weights as bytes in SRAM."""
