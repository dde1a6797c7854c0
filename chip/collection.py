"""Python's garbage collection, kept away from where it finds nothing."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected(stays: bool = False) -> Iterator[None]:
    """No search for cycles inside: for what makes many small objects that stay and have none.

    Schedules and programs are millions of tuples; looking through all of them again and again, as
    they grow, takes a third of the time in which they are made.

    What `stays` to the end of the process counts as old then, and is not looked through next.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            if stays and not gc.get_freeze_count():  # else somebody wants the frozen to stay so
                gc.freeze()
                gc.unfreeze()
            gc.enable()
