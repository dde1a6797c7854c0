"""LPU clusters against GPUs and TPUs: data sheets, rooflines, measured speeds, and the verdict."""
