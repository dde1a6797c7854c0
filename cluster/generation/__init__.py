"""Prompts to tokens on a machine: host inputs, laps, sampling, several sequences in flight."""
