"""Who computes what: layers to stages, heads and columns to ranks."""
