"""Python's garbage collection, kept away from where it finds nothing."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for cycles inside: for what makes many small objects that stay and have none.

    Schedules and programs are millions of tuples; looking through all of them again and again, as
    they grow, takes a third of the time in which they are made. Nor is there one at its end: what
    was made counts as old, which is looked through once it is a quarter of all.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            if not gc.get_freeze_count():  # else somebody wants what is frozen to stay so
                gc.freeze()
                gc.unfreeze()
            gc.enable()
