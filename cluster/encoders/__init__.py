"""BERT-like encoders: stages of layers, a program per sequence length, sentence embeddings."""
