"""Timings of schedules as they are read from the disk."""

from typing import Any

from chip.schedule import ScheduleTiming


def timing_of(plain: dict[str, Any]) -> ScheduleTiming:
    """A timing from JSON, as `asdict` gives it."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
    return ScheduleTiming(**fields)
