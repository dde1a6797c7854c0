"""Chips on Ray actors: groups, memory, channels between them. Only `ray_machine` imports Ray."""
