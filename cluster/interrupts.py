"""Ctrl-C: an exception where the program is, and an end of the process where that is too late."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

INTERRUPTED = 130
AGAIN_S = 1.0  # after which an exception that was lost, as in a callback of an import, comes again
GRACE_S = 0.7  # in which a command may end by itself
WORDS = b"lpu: interrupted\n"


def raise_interrupt(_number: int, _frame: object) -> None:
    """Handle SIGINT; and SIGALRM a second later if the exception was lost."""
    error = sys.exception()
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return  # on its way: things are being put away
        error = error.__context__
    signal.signal(signal.SIGALRM, raise_interrupt)
    signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
    raise KeyboardInterrupt


def disarm() -> None:
    """Forget an interrupt that has been dealt with, so that the exit code is ours."""
    for number in (signal.SIGINT, signal.SIGALRM):  # nothing is left to interrupt
        signal.signal(number, signal.SIG_IGN)
    # Python notes an interrupt that passes through code made from text, such as of a dataclass, and
    # ends by a signal for it later; running other such code takes the note back.
    exec("")


@contextmanager
def ends_at_once() -> Iterator[None]:
    """End the process soon after Ctrl-C, also in the middle of a long call into compiled code.

    For work that leaves nothing to put away.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=_end_after_interrupt, args=(reader,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        thread.join(GRACE_S / 2)


def end_now() -> NoReturn:
    """Say that we were interrupted, and end the process."""
    os.write(2, WORDS)
    os._exit(INTERRUPTED)


def leave(code: int) -> NoReturn:
    """End the process with an exit code, its memory as it is; what stdout holds is written."""
    sys.stderr.flush()
    os._exit(code)


def _end_after_interrupt(reader: int) -> None:
    with os.fdopen(reader, "rb", buffering=0) as signals:
        while number := signals.read(1):
            if number[0] == signal.SIGINT:
                time.sleep(GRACE_S)
                end_now()
