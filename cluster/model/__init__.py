"""Models: shapes, weights, tokeniser, and a plain NumPy forward pass to compare with.

Import from the modules: `load` pulls in tokenizers, gguf and jinja2, `spec` only NumPy.
"""
