"""Published numbers of LPUs against ours: every row is computed by the machinery that runs."""
