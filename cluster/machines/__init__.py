"""What runs programs in this process, and what wraps it: clocks, records, checkpoints."""
