"""From a placed plan to programs: one time axis of all chips and links, started by their clocks."""
