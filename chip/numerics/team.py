"""Threads that help with an array pass: native code from hand-over to hand-over, no Python between.

A pass is cut into pieces. The caller publishes how many are left and starts taking them; helpers
that are awake take some too. Nobody waits for a thread that the host does not let run: one that
comes late finds nothing left, and a piece it holds for too long is done again by the caller, with
the same result. Helpers spin for a moment after the last piece, then sleep until the next pass.
"""

import atexit
import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.extending import intrinsic

from chip.numerics.exact import Int64

types: Any = numba.types

# Words of the control block; those that threads contend for are a cache line apart.
TICKET, STOP, JOB, DONE = 0, 8, 16, 32  # DONE + piece holds 1 + the count that it returned
MAX_PIECES = 64
_CONTROL_WORDS = DONE + MAX_PIECES
_LEFT_BITS = 20  # a ticket is the number of a pass and, in these bits, of its pieces left
LATE_SPINS = 8_000  # some 0.05 ms, longer on some processors
_IDLE_SPINS, _IDLE_NAPS, _NAP_US = 40_000, 100, 100  # some 0.2 ms, then some 15 ms


def _place(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.gep(data, [args[1]])


def _load(_typing: Any, words: Any, index: Any) -> Any:
    """Return words[index], atomically; what was written before it was is visible after."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_place(context, builder, signature, args), "acquire", 8)

    return types.int64(words, types.intp), codegen


def _store(_typing: Any, words: Any, index: Any, value: Any) -> Any:
    """Write words[index] atomically, after all that was written before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, signature, args)
        builder.store_atomic(args[2], place, "release", 8)
        return context.get_dummy_value()

    return types.void(words, types.intp, types.int64), codegen


def _replace(_typing: Any, words: Any, index: Any, old: Any, new: Any) -> Any:
    """Replace words[index] by `new` if it is still `old`; say whether it was."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, signature, args)
        pair = builder.cmpxchg(place, args[2], args[3], "acq_rel", "acquire")
        return builder.extract_value(pair, 1)

    return types.boolean(words, types.intp, types.int64, types.int64), codegen


def _relax(_typing: Any) -> Any:
    """Tell the processor that this is a spin loop."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if x86:
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), kind), [])
        return context.get_dummy_value()

    return types.void(), codegen


def _pointer(_typing: Any, address: Any) -> Any:
    """Turn an integer into a pointer."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.intp), codegen


def _call(_typing: Any, address: Any, a: Any, b: Any) -> Any:
    """Call a function of two integers that returns one, at an address."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(word, [word, word]).as_pointer()
        return builder.call(builder.inttoptr(args[0], kind), args[1:])

    return types.int64(types.int64, types.int64, types.int64), codegen


load, store, replace, relax, pointer, call = (
    intrinsic(function) for function in (_load, _store, _replace, _relax, _pointer, _call)
)


def _publish(control: Any, job: Any, pieces: Any) -> None:
    """Offer the pieces of a pass to the helpers."""
    for i in range(len(job)):  # slices would be as right, but take seconds to compile
        control[JOB + i] = job[i]
    for i in range(pieces):
        control[DONE + i] = 0
    number = (load(control, TICKET) >> _LEFT_BITS) + 1
    store(control, TICKET, (number << _LEFT_BITS) + pieces)


def _take(control: Any) -> Any:
    """Return the number of a piece that is now the caller's to do, or -1.

    The job stays as it is until that piece has been marked as done.
    """
    while True:
        ticket: Any = load(control, TICKET)
        left = ticket & ((1 << _LEFT_BITS) - 1)
        if left == 0 or replace(control, TICKET, ticket, ticket - 1):
            return left - 1


def _await(control: Any, piece: Any, spins: Any) -> Any:
    """Return whether a piece is done, after spinning for a while if it is not."""
    for _ in range(spins):
        if load(control, DONE + piece):
            return True
        relax()
    return False


def _idle(rounds: Any) -> Any:
    """Rest a little, the longer the more rounds there was nothing to do; say if it is too long."""
    if rounds < _IDLE_SPINS:
        relax()
    else:
        usleep(_NAP_US)
    return rounds > _IDLE_SPINS + _IDLE_NAPS


usleep: Any = types.ExternalFunction("usleep", types.int32(types.uint32))
publish, take, await_piece, idle = (
    numba.njit(nogil=True)(function) for function in (_publish, _take, _await, _idle)
)


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
    """Helper threads, started when first needed. One pass at a time may use them: take `lock`."""

    def __init__(self, helpers: int, serve: Callable[[Int64], None]) -> None:
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
        self._held: list[tuple[Int64, int, Any]] = []

    @contextmanager
    def helpers(self, pieces: int) -> Iterator[Int64 | None]:
        """The control block of the team, awake; None if that is not worth it or not free."""
        if pieces < 2 or self.size < 2 or not self.lock.acquire(blocking=False):
            yield None
            return
        try:
            self.wake()
            yield self.control
        finally:
            self.lock.release()

    def wake(self) -> None:
        """Ring for all helpers that sleep."""
        while len(self._helpers) < self.size - 1:
            self._helpers.append(_Helper(self))
        for helper in self._helpers:
            helper.ring()

    def abandon(self, pieces: int, arrays: Any) -> None:
        """Leave late helpers alone with their pieces, and keep the arrays until these are done."""
        self._held = [held for held in self._held if not _all_done(held[0], held[1])]
        self._held.append((self.control, pieces, arrays))
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
