"""Columns as they begin: lists for requests that come one by one, arrays for many at once."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.serving.core import columns as c

ORDERS = {"prefill": c.PREFILL_FIRST, "decode": c.DECODE_FIRST, "budget": c.TOKEN_BUDGET}
MANY = 1 << 40  # pages: more than there are tokens
MOST_BLOCKS = 1 << 16  # hashes of a request, where there is no bound of the caches


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
    whole: bool = False  # whether a decode is a launch through all stages

    def rules(self, policy: Policy) -> c.Rules:
        """The rules of a policy on this plan."""
        pages = MANY if policy.pages is None else policy.pages
        return c.Rules(
            self.stages, self.slots, self.chunk, self.rows, ORDERS[policy.order],
            policy.budget_tokens, int(self.beside), policy.page_tokens, pages, policy.block_tokens,
            policy.most_blocks, max(self.chunk, 1), self.host_latency_s, self.clock_hz,
            policy.move_s, int(self.whole),
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
    shape: Shape, policy: Policy, moves: Any, hashes: dict[int, int], transfers: int
) -> c.State:
    """No requests yet; `add_row` makes room for one. `hashes` are by place.

    There is room to note so many `transfers` of caches.
    """
    return _state(shape, policy, moves, hashes, {}, transfers)


def of_arrays(
    shape: Shape,
    policy: Policy,
    moves: npt.NDArray[np.float64],
    requests: int,
    hashes: Any,
    transfers: int = 0,
) -> c.State:
    """Room for so many requests and transfers; arrays stand in for what types speak of."""
    kept: Any = np.zeros(shape.slots * policy.most_blocks if policy.block_tokens else 1, np.int64)
    empty = _state(shape, policy, moves, hashes, kept, transfers)
    columns: Any = [one if isinstance(one, tuple) else np.array(one) for one in empty]
    arrays: Any = c.State(*columns)
    found: c.State = arrays._replace(
        requests=np.repeat(np.array(NEW_INTS)[:, None], requests, axis=1),
        times=np.repeat(np.array(NEW_TIMES)[:, None], requests, axis=1),
        heaps=np.zeros((2, requests), np.int64),
        transfers=np.zeros((c.TRANSFER_INTS, transfers), np.int64),
        transfer_s=np.zeros((2, transfers)),
    )
    return found


def _state(
    shape: Shape, policy: Policy, moves: Any, hashes: Any, kept: Any, transfers: int
) -> c.State:
    """All columns, those by request empty."""
    slots, places = shape.slots, shape.stages * shape.rows

    def line() -> list[c.Ints]:
        return [[c.NOBODY] * places, *([0] * places for _ in range(c.LINE_INTS - 1))]

    return c.State(
        shape.rules(policy),
        [[] for _ in NEW_INTS], [[] for _ in NEW_TIMES],
        [[c.NOBODY] * slots, *([0] * slots for _ in range(c.SLOT_INTS - 1))], [0.0] * slots,
        [line(), line()], [0, 0], [0, 0], moves, list(policy.refill_s or (0.0,)),
        [[], []], [0, 0], hashes, kept, [0] * shape.rows,
        [[0] * transfers for _ in range(c.TRANSFER_INTS)], [[0.0] * transfers for _ in range(2)],
        [0.0, 0.0, 0.0],
        [0] * c.COUNTS,
    )  # fmt: skip


NEW_INTS = [0] * c.REQUEST_INTS  # of a request that nothing is known of
NEW_INTS[c.SLOT] = c.NOBODY
NEW_TIMES = [0.0, -1.0, math.inf, -1.0, -1.0]


def add_row(state: c.State, spare: list[int], ints: dict[int, int], arrives_s: float) -> int:
    """Make a row for a request, a spare one if there is; return which it is."""
    if not spare:
        columns: list[Any] = [*state.requests, *state.times, *state.heaps]
        for column in columns:
            column.append(0)
        spare = [len(state.heaps[c.LATER]) - 1]
    r = spare.pop()
    for at, value in enumerate(NEW_INTS):
        state.requests[at][r] = ints.get(at, value)
    for at, second in enumerate(NEW_TIMES):
        state.times[at][r] = second
    state.times[c.ARRIVES][r] = arrives_s
    return r


def chained(before: int, tokens: Sequence[int]) -> int:
    """The hash of a block of tokens behind others, in 63 bits."""
    data = np.array([before, *tokens], np.int64).tobytes()
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little") >> 1
