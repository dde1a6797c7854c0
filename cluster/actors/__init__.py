"""Chips on Ray actors: groups, memory, lines between them. Only `ray_machine` imports Ray."""
