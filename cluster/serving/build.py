"""Columns as they begin: lists for requests that come one by one, arrays for many at once."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.serving.core import columns as c

ORDERS = {"prefill": c.PREFILL_FIRST, "decode": c.DECODE_FIRST, "budget": c.TOKEN_BUDGET}
MANY = 1 << 40  # pages: more than there are tokens
MOST_BLOCKS = 1 << 16  # hashes of a request, where there is no bound of the caches
Column = Callable[[int, float], c.Floats]  # length, value


@dataclass(frozen=True)
class Policy:
    """How requests share steps, pages and what is in the caches already.

    `order`: "prefill" or "decode" goes first, or "budget", with `budget_tokens` of prompts between
    two decode steps. Caches are counted in `pages` of `page_tokens`; None is all there is room for.
    Prefixes are found by hashes of `block_tokens`; 0 is not at all. `move_s` is what a token of a
    cache takes over the host link, `refill_s` what so many context blocks take to be made again.
    """

    order: str = "prefill"
    budget_tokens: int = 0
    page_tokens: int = CONTEXT_BLOCK
    pages: int | None = None
    block_tokens: int = 0
    most_blocks: int = MOST_BLOCKS
    move_s: float = math.inf
    refill_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class Shape:
    """What the scheduler must know of a plan."""

    stages: int
    slots: int
    chunk: int
    rows: int
    beside: bool
    host_latency_s: float
    clock_hz: float

    def rules(self, policy: Policy) -> c.Rules:
        """The rules of a policy on this plan."""
        pages = MANY if policy.pages is None else policy.pages
        return c.Rules(
            self.stages, self.slots, self.chunk, self.rows, ORDERS[policy.order],
            policy.budget_tokens, int(self.beside), policy.page_tokens, pages, policy.block_tokens,
            policy.most_blocks, max(self.chunk, 1), self.host_latency_s, self.clock_hz,
            policy.move_s,
        )  # fmt: skip


class Lazy(list[float]):
    """A column whose values are worked out when they are first asked for."""

    def __init__(self, value: Callable[[int], float]) -> None:
        super().__init__()
        self._value = value
        self._known: dict[int, float] = {}

    def __getitem__(self, index: int) -> float:  # type: ignore[override]
        if index not in self._known:
            self._known[index] = self._value(index)
        return self._known[index]


def of_lists(
    shape: Shape, policy: Policy, moves: tuple[c.Moves, c.Moves], hashes: dict[int, int]
) -> c.State:
    """No requests yet; `add` makes room for one. `hashes` are by place."""

    def column(length: int, value: float) -> c.Floats:
        return [value] * length

    return _state(shape, policy, moves, column, column, 0, hashes, {})


def of_arrays(
    shape: Shape,
    policy: Policy,
    moves: tuple[c.Moves, c.Moves],
    requests: int,
    hashes: npt.NDArray[np.int64],
) -> c.State:
    """Room for so many requests."""
    kept = np.zeros(shape.slots * policy.most_blocks if policy.block_tokens else 1, np.int64)
    return _state(
        shape, policy, moves,
        lambda length, value: np.full(length, int(value), np.int64),
        lambda length, value: np.full(length, value, np.float64),
        requests, hashes, kept,
    )  # fmt: skip


def _state(
    shape: Shape, policy: Policy, moves: tuple[c.Moves, c.Moves],
    ints: "Callable[[int, int], c.Ints]", floats: Column, requests: int, hashes: object,
    kept: object,
) -> c.State:  # fmt: skip
    """All columns, made by `ints` and `floats`."""
    slots, n = shape.slots, requests

    def line() -> c.Lines:
        rows = shape.stages * shape.rows
        by_stage = (ints(shape.stages, 0) for _ in range(3))
        return c.Lines(ints(rows, c.NOBODY), ints(rows, 0), *by_stage, ints(2, 0))

    columns = c.Requests(
        floats(n, 0.0), *(ints(n, 0) for _ in range(13)), ints(n, c.NOBODY), floats(n, -1.0),
        floats(n, math.inf), floats(n, -1.0), floats(n, -1.0),
    )  # fmt: skip
    refill = floats(max(1, len(policy.refill_s)), 0.0)
    for blocks, seconds in enumerate(policy.refill_s):
        refill[blocks] = seconds
    return c.State(
        shape.rules(policy), columns,
        c.Slots(ints(slots, c.NOBODY), floats(slots, 0.0), *(ints(slots, 0) for _ in range(3))),
        line(), line(), *moves, refill, ints(n, 0), ints(n, 0), ints(2, 0),
        hashes, kept, ints(shape.rows, 0), floats(2, 0.0), ints(c.COUNTS, 0),
    )  # fmt: skip


BLANK = c.Requests(
    0.0, *(0 for _ in range(13)), c.NOBODY, -1.0, math.inf, -1.0, -1.0
)  # fmt: skip


def add_row(state: c.State, spare: list[int], values: dict[str, float]) -> int:
    """Make a row for a request, a spare one if there is; return which it is."""
    blank = BLANK._replace(**values)
    if spare:
        r = spare.pop()
        for column, value in zip(state.requests, blank, strict=True):
            column[r] = value
        return r
    for column, value in zip(state.requests, blank, strict=True):
        column.append(value)
    state.later.append(0)
    state.waiting.append(0)
    return len(state.later) - 1


def chained(before: int, tokens: Sequence[int]) -> int:
    """The hash of a block of tokens behind others, in 63 bits."""
    data = np.array([before, *tokens], np.int64).tobytes()
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little") >> 1
