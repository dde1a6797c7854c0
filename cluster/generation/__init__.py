"""What the host computes around a launch: rotary tables, the choice of a token."""
