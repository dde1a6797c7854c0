"""One `lpu run` from its options to its report, its progress and its trace."""
