"""LPUs with GPUs: prompts on GPUs, or attention on GPUs and FFNs on LPUs; against either alone."""
