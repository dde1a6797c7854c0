"""Threads that share a run of products: native code from hand-over to hand-over, no Python between.

A run is cut into pieces. The caller publishes how many are left and starts taking them; helpers
that are awake take some too. Nobody waits for a thread that the host does not let run: one that
comes late finds nothing left, and a piece it holds for too long is done again by the caller, with
the same result. Helpers spin for a moment after the last piece, then sleep until the next run.
"""

import atexit
import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]

from chip.jit.cache import kernel
from chip.jit.layout import JOB_WORDS, LATE, Untyped
from chip.jit.memory import INT, VOID, caller, emitted, inner, integer, types
from chip.numerics.exact import Int64

# Words of the control block; those that threads contend for are a cache line apart.
TICKET, STOP, FUNCTION, JOB, DONE = 0, 8, 16, 17, 32
MAX_PIECES = 64  # DONE + piece holds 1 + what it returned
_CONTROL_WORDS = DONE + MAX_PIECES
_LEFT_BITS = 20  # a ticket is the number of a run and, in these bits, of its pieces left
_LATE_SPINS = 8_000  # some 0.05 ms, longer on some processors
_IDLE_SPINS, _IDLE_NAPS, _NAP_US = 40_000, 100, 100  # some 0.2 ms, then some 15 ms
_SPINS_A_TURN = 2048  # some 0.05 ms, after which whoever waits for this processor may go on
_IS_X86 = platform.machine().lower() in ("x86_64", "amd64")


def _place(builder: Untyped, args: Untyped) -> Untyped:
    return builder.gep(builder.inttoptr(args[0], ir.IntType(64).as_pointer()), [args[1]])


@emitted(INT, INT, INT)
def load(_context: Untyped, builder: Untyped, args: Untyped) -> Untyped:
    """Word n of a control block, atomically; what was written before it was is visible after."""
    return builder.load_atomic(_place(builder, args), "acquire", 8)


@emitted(VOID, INT, INT, INT)
def store(_context: Untyped, builder: Untyped, args: Untyped) -> None:
    """Write word n of a control block atomically, after all that was written before."""
    builder.store_atomic(args[2], _place(builder, args), "release", 8)


@emitted(types.boolean, INT, INT, INT, INT)
def replace(_context: Untyped, builder: Untyped, args: Untyped) -> Untyped:
    """Replace word n of a control block by the last if it is still the third; say whether."""
    pair = builder.cmpxchg(_place(builder, args), args[2], args[3], "acq_rel", "acquire")
    return builder.extract_value(pair, 1)


@emitted(VOID)
def relax(_context: Untyped, builder: Untyped, _args: Untyped) -> None:
    """Tell the processor that this is a spin loop."""
    if _IS_X86:
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), kind), [])


call = caller(2)
usleep = types.ExternalFunction("usleep", types.int32(types.uint32))
sched_yield = types.ExternalFunction("sched_yield", types.int32())


@inner
def take(control: int) -> int:
    """The number of a piece that is now the caller's to do, or -1.

    The job stays as it is until that piece has been marked as done.
    """
    while True:
        ticket = load(control, TICKET)
        left: int = ticket & ((1 << _LEFT_BITS) - 1)
        if left == 0 or replace(control, TICKET, ticket, ticket - 1):
            return left - 1


@kernel(INT(INT, INT, INT, INT))
def lead(control: int, function: int, job: int, pieces: int) -> int:
    """Run the function on the job piece by piece, with helpers if there are several.

    Returns the sum of its results, and LATE more if some helper was late and may still be writing.
    """
    if pieces == 1:
        found: int = call(function, job, 0)
        return found
    store(control, FUNCTION, function)
    for n in range(JOB_WORDS):
        store(control, JOB + n, integer(job, n))
    for n in range(pieces):
        store(control, DONE + n, 0)
    number = (load(control, TICKET) >> _LEFT_BITS) + 1
    store(control, TICKET, (number << _LEFT_BITS) + pieces)
    while True:
        number = take(control)
        if number < 0:
            break
        store(control, DONE + number, 1 + call(function, job, number))
    count, late = 0, 0
    for number in range(pieces):
        for spin in range(1 if late else _LATE_SPINS):
            if load(control, DONE + number):
                break
            relax()
            if spin % _SPINS_A_TURN == _SPINS_A_TURN - 1:
                sched_yield()
        done = load(control, DONE + number)
        if done:
            count += done - 1
        else:
            count, late = count + call(function, job, number), LATE
    return count + late


def serve(control: int, _unused: int) -> int:
    """Help with the runs of others until there have been none for long, or STOP is set."""
    rounds = 0
    while load(control, STOP) == 0 and rounds <= _IDLE_SPINS + _IDLE_NAPS:
        number = take(control)
        if number >= 0:
            result = call(load(control, FUNCTION), control + 8 * JOB, number)
            store(control, DONE + number, 1 + result)
            rounds = 0
        elif rounds < _IDLE_SPINS:
            relax()
            if rounds % _SPINS_A_TURN == 0:
                sched_yield()
        else:
            usleep(_NAP_US)
        rounds += 1
    return 0


class _Helper:
    """A thread that serves, and sleeps when there has been nothing to do for long."""

    def __init__(self, team: "Team") -> None:
        self._team, self._bell, self._asleep = team, threading.Lock(), False
        self._bell.acquire()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def ring(self) -> None:
        if self._asleep:
            self._asleep = False
            self._bell.release()

    def _run(self) -> None:
        while not self._team.stopped:
            control = self._team.control
            self._team.serve(control)
            if control is self._team.control:
                self._asleep = True
                if not self._team.stopped:  # or this bell might never ring
                    self._bell.acquire()


class Team:
    """Helper threads, started when first needed. One caller at a time may use them."""

    def __init__(self, helpers: int, serve: Callable[[Int64], object]) -> None:
        """`serve(control)` runs pieces until there have been none for long, or STOP is set."""
        self.size, self.serve, self.stopped = 1 + helpers, serve, False
        self._forget()
        atexit.register(self._stop)  # no helper may run compiled code while it is unloaded
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)  # threads do not survive a fork

    def _forget(self) -> None:
        self.control: Int64 = np.zeros(_CONTROL_WORDS, np.int64)
        self.lock = threading.Lock()
        self._helpers: list[_Helper] = []
        self._held: list[tuple[Int64, int, object]] = []

    @contextmanager
    def helpers(self) -> Iterator[Int64 | None]:
        """The control block of the team, awake; None if there is none or it is not free."""
        if self.size < 2 or not self.lock.acquire(blocking=False):
            yield None
            return
        try:
            while len(self._helpers) < self.size - 1:
                self._helpers.append(_Helper(self))
            for helper in self._helpers:
                helper.ring()
            yield self.control
        finally:
            self.lock.release()

    def abandon(self, pieces: int, owner: object) -> None:
        """Leave late helpers alone with their pieces, and keep the owner until these are done."""
        self._held = [held for held in self._held if not _all_done(held[0], held[1])]
        self._held.append((self.control, pieces, owner))
        self.control[STOP] = 1
        self.control = np.zeros(_CONTROL_WORDS, np.int64)

    def _stop(self) -> None:
        self.stopped = True
        self.control[STOP] = 1
        for helper in self._helpers:
            helper.ring()
            helper.thread.join()


def _all_done(control: Int64, pieces: int) -> bool:
    return bool(control[DONE : DONE + pieces].all())
