"""One LPU chip: its instruction set, programs, linker and executor. Knows nothing of clusters."""
