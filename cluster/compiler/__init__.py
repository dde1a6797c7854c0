"""From a plan to programs: chosen, placed, on one time axis, started by the clocks of its chips."""
