"""Weights of a model's graph from files of any format, or drawn at random."""
