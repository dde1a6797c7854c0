"""Passes over the graph of a model: pure functions, each with a validator behind it."""
