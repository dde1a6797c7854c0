"""Passes from a model to programs: pure functions, each with a validator behind it."""
