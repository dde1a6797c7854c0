"""Chip benchmark: one emulated chip at work, its results checked against NumPy.

    python scripts/bench.py chip [--rounds N] [--case NAME]

The shapes are those that other emulators were measured on, on two cores like these: the
feed-forward block of SmolLM2-135M on FTLPU-CMODEL, a functional TSP model, and products of
4096 x 4096 on SCALE-Sim v3, a systolic-array simulator that computes cycles but no values.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import itertools

import numpy as np

from chip.core import Chip
from chip.isa import NUMPY_TYPES
from chip.kernels.matmul import Pass, matmul
from chip.kernels.memory import MemoryMap
from chip.program import Program, word_columns
from chip.schedule import Buffer, Chain, Flow, Rows, Schedule
from chip.spec import EAST, GROQCHIP1, WEST
from chip.wire import pack, unpack
from cluster.process import peak_rss_bytes

LANES = GROQCHIP1.lanes
SCALE = 1.0 / 512  # of the hidden values before they are int8 again
Drain = Callable[[Chain, Flow], Flow]


@dataclass(frozen=True)
class Case:
    """A shape, and what a peer was measured to take for it: seconds, products and cycles per s."""

    name: str
    m: int
    sizes: tuple[int, ...]
    dtype: str
    peer: str
    peer_s: float | None = None
    peer_products_per_s: float | None = None
    peer_cycles_per_s: float | None = None
    limit_s: float | None = None


FTLPU, SCALE_SIM = "FTLPU-CMODEL", "SCALE-Sim v3"
CASES = (
    Case("ffn-prefill", 128, (576, 1536, 576), "i8", FTLPU, None, 38.7e6, 5.3e3),
    Case("ffn-decode", 1, (576, 1536, 576), "i8", FTLPU, 1.41, limit_s=0.1),
    *(
        Case(f"{m}x4096x4096-{dtype}", m, (4096, 4096), dtype, SCALE_SIM, 50.0, limit_s=1.0)
        for dtype in ("f16", "i8")
        for m in (1, 16, 128)
    ),
)


class Work:
    """A case on a chip: schedule, program, data and the NumPy result."""

    def __init__(self, case: Case) -> None:
        self.case, self.memory, self.plan = case, MemoryMap(GROQCHIP1), Schedule(GROQCHIP1)
        self.chip, self.random = Chip(0), np.random.default_rng(5)
        self.sides = (EAST, WEST) if len(case.sizes) == 2 else (EAST,)
        blocks = [-(-size // LANES) for size in case.sizes]
        first = self._values(case.m, case.sizes[0])
        rows = {side: self._rows(f"x{side}", side, 0, blocks[0]) for side in self.sides}
        data: list[tuple[Buffer, Any]] = [(b, _blocked(first)) for b in rows.values()]
        self.expected = first
        for layer, (k, n) in enumerate(zip(case.sizes, case.sizes[1:], strict=False)):
            w = self._values(n, k)
            last = layer == len(case.sizes) - 2
            data += self._layer(layer, w, rows, last)
            self.expected = self._reference(self.expected, w, last)
        program = pack(self.plan.program(0, Program(0, GROQCHIP1.name, 0, {}, ())))
        start = time.perf_counter()
        self.linked = self.chip.load("it", program)
        self.link_s = time.perf_counter() - start
        assert self.linked.end_cycle == self.plan.end_cycle
        assert unpack(program).chip == 0
        for buffer, values in data:
            self.chip.write(buffer.region, values)

    def _values(self, rows: int, columns: int) -> Any:
        if self.case.dtype == "i8":
            return self.random.integers(-128, 128, (rows, columns), dtype=np.int8)
        return self.random.standard_normal((rows, columns), np.float32).astype(np.float16)

    def _rows(self, name: str, side: int, bank: int, blocks: int) -> Buffer:
        return self.memory.rows(name, (side, 2, bank), blocks * self.case.m, self.case.dtype)

    def _layer(
        self, layer: int, w: Any, rows: dict[int, Buffer], last: bool
    ) -> list[tuple[Buffer, Any]]:
        """Schedule x W; output blocks go to the sides in turn. Returns the weights' buffers."""
        case, words = self.case, LANES // word_columns(self.case.dtype)
        ins, outs = -(-w.shape[1] // LANES), -(-len(w) // LANES)
        made, self.results = [], list[tuple[int, Buffer]]()
        kind = "i32" if case.dtype == "i8" else "f32"
        hidden = self._rows(f"h{layer}", EAST, 1, outs) if not last else None
        for side in self.sides:
            mine = range(side, outs, len(self.sides)) if len(self.sides) > 1 else range(outs)
            columns = np.concatenate([_columns(w, out, ins) for out in mine])
            weights = self.memory.columns(f"w{layer}{side}", side, len(columns), dtype=case.dtype)
            made.append((weights, columns))
            for number, out in enumerate(mine):
                chain = Chain(GROQCHIP1, "matmul")
                passes = [
                    Pass(
                        weights, (number * ins + block) * words, 1, words,
                        Rows(rows[side], block * case.m, (0, 1)), case.m,
                        first=block == 0, last=block == ins - 1,
                    )
                    for block in range(ins)
                ]  # fmt: skip
                (flow,) = matmul(chain, side, passes)
                if hidden is None:
                    place = (side, number % 2, number // 2 % 2)
                    target = self.memory.rows(f"y{out}", place, case.m, kind)
                    self.results.append((out, target))
                    chain.write(flow, Rows(target))
                else:
                    scaled = chain.vxm("mul", chain.vxm("to_f32", flow), SCALE)
                    chain.write(chain.vxm("to_i8", scaled), Rows(hidden, out * case.m))
                self.plan.place(chain)
        if hidden is not None:
            rows[EAST] = hidden
        return made

    def _reference(self, x: Any, w: Any, last: bool) -> Any:
        wide = x.astype(np.float64)
        exact = np.hstack([wide @ w[at : at + LANES].T for at in range(0, len(w), LANES)])
        if self.case.dtype != "i8":
            return exact
        if last:  # below 2**53
            return exact.astype(np.int32)
        scaled = exact.astype(np.float32) * np.float32(SCALE)
        return np.rint(scaled).clip(-128, 127).astype(np.int8)

    def run(self) -> float:
        """Seconds of one launch."""
        start = time.perf_counter()
        self.chip.begin("it")
        for segment in range(len(self.linked.segments)):
            self.chip.run(segment, {})
        seconds = time.perf_counter() - start
        self.chip.finish()
        return seconds

    def check(self) -> bool:
        """Whether the results are those of NumPy: exactly, or as close as fp32 sums can be."""
        found = np.empty((self.case.m, len(self.results) * LANES), np.float64)
        for out, buffer in self.results:
            found[:, out * LANES : (out + 1) * LANES] = self.chip.read(buffer.region)
        found = found[:, : self.case.sizes[-1]]
        if self.case.dtype == "i8":
            return bool((found == self.expected).all())
        return bool(np.allclose(found, self.expected, rtol=1e-5, atol=1e-3))

    @property
    def products(self) -> int:
        """Products that the result needs, without padding."""
        sizes = self.case.sizes
        return self.case.m * sum(a * b for a, b in itertools.pairwise(sizes))


def _blocked(x: Any) -> Any:
    """Rows [blocks * m, lanes]: the lanes of x, block after block, zero beyond."""
    m, k = x.shape
    padded = np.zeros((m, -(-k // LANES) * LANES), x.dtype)
    padded[:, :k] = x
    return np.ascontiguousarray(padded.reshape(m, -1, LANES).swapaxes(0, 1)).reshape(-1, LANES)


def _columns(w: Any, out: int, ins: int) -> Any:
    """Columns [ins * lanes, lanes] of an output block, one tile for each input block."""
    padded = np.zeros((LANES, ins * LANES), w.dtype)
    mine = w[out * LANES : (out + 1) * LANES]
    padded[: len(mine), : w.shape[1]] = mine
    tiles = padded.reshape(LANES, ins, LANES).swapaxes(0, 1)
    return np.ascontiguousarray(tiles).reshape(-1, LANES).astype(NUMPY_TYPES[_name(w)])


def _name(w: Any) -> str:
    return "i8" if w.dtype == np.int8 else "f16"


def measure(case: Case, rounds: int) -> bool:
    """Run a case and print its figures; whether its result is right."""
    work = Work(case)
    first = work.run()
    right = work.check()
    seconds = median(work.run() for _ in range(rounds))
    products, cycles = work.products / seconds, work.linked.end_cycle / seconds
    link = 1000 * work.link_s / max(1, work.linked.instructions) * 1000
    said = "equal to NumPy" if right else "WRONG"
    print(f"{case.name:20} {said}, {work.linked.end_cycle} cycles")
    than = _than(case.peer_s, seconds) + (f" (floor {case.limit_s} s)" if case.limit_s else "")
    print(f"  {seconds * 1e3:10.1f} ms a run (first {first * 1e3:.1f}){than}")
    print(f"  {products / 1e6:10.1f} M products/s{_ratio(products, case.peer_products_per_s)}")
    print(f"  {cycles / 1e3:10.1f} k cycles/s{_ratio(cycles, case.peer_cycles_per_s)}")
    print(f"  {link:10.1f} ms to link 1,000 instructions, of {work.linked.instructions}")
    peak = peak_rss_bytes() / 1e6
    print(f"  {peak:10.0f} MB peak memory of its process (floor of a product 500 MB)", flush=True)
    return right


def _ratio(ours: float, theirs: float | None) -> str:
    return f", {ours / theirs:.0f} times the peer's {theirs:.3g}" if theirs else ""


def _than(theirs: float | None, ours: float) -> str:
    return f", {theirs / ours:.0f} times faster than the peer's {theirs} s" if theirs else ""


def run(arguments: Sequence[str]) -> int:
    """Measure all cases, or those whose name begins with --case, each in a process of its own."""
    parser = argparse.ArgumentParser(prog="bench.py chip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", default="", help="how the names of the wanted cases begin")
    given = parser.parse_args(arguments)
    chosen = [case for case in CASES if case.name.startswith(given.case)]
    if not chosen:
        names = ", ".join(case.name for case in CASES)
        print(f"bench.py chip: no case {given.case!r}; there are {names}", file=sys.stderr)
        return 2
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as processes:
        right = list(processes.map(measure, chosen, [given.rounds] * len(chosen)))
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
