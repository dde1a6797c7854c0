"""V28, V29: products too large for SRAM, whose operands stream from hosts over PCIe."""

from collections.abc import Iterator

import numpy as np

from chip.kernels.streamed_gemm import StreamedGemm
from chip.rates import host_transfer_s
from chip.spec import GROQCHIP1, ChipSpec
from cluster.validate.row import Row, missed, within
from topology import parse
from topology.collectives import collective

ISCA22 = "Abts et al., ISCA 2022"
NODE = 8
M, K, N = 1600, 1600, 6400  # a chip's block of C, the largest that its inner slices hold
BLOCKS_DEEP = 125  # slabs of K in the smallest published product, 200,000


def product_rows() -> Iterator[Row]:
    """V28: chips of a node share the columns of B and have rows of A of their own.

    While a slab of K is multiplied, the next comes from the hosts, and its eighths of B from the
    other chips: it takes as long as the slowest of the three. C goes back when K is through.
    """
    spec = GROQCHIP1
    block = StreamedGemm(spec, M, K, N)
    spread = collective("all_gather", parse("node"), 2 * K * N)
    into_s = host_transfer_s(spec, 2 * K * (M + N // NODE)) - spec.host_latency_s
    parts = {
        "products": block.plan.end_cycle,
        "host transfers": round(into_s * spec.clock_hz),
        "all-gather in the node": spread.cycles,
    }
    slab_s = max(parts.values()) / spec.clock_hz
    block_s = BLOCKS_DEEP * slab_s + host_transfer_s(spec, 2 * M * N)
    rate = 2 * M * K * N * BLOCKS_DEEP / block_s
    cycles = ", ".join(f"{name} {n:,}" for name, n in parts.items())
    for chips, published in ((100, 10.5e15), (200, 27e15), (300, 37.5e15)):
        what = f"square product on {chips} chips, fp16, FLOP/s"
        where = f"blocks {M} x {K} x {N} of each chip, cycles of a slab: {cycles}"
        row = within("V28", what, published, chips * rate, 30, f"{ISCA22}, figure 15", where)
        yield missed(row, f"cycles of a slab: {cycles}")


def layout_rows() -> Iterator[Row]:
    """V29: a chip's columns of a 100k x 100k fp16 matrix, as the runs of bytes in host memory."""
    size, width, chips = 100_000, 2, 100
    columns = size // chips
    speeds = {}
    for order in "FC":
        matrix = np.lib.stride_tricks.as_strided(
            np.zeros(1, np.float16), (size, columns),
            (width, width * size) if order == "F" else (width * size, width),
        )  # fmt: skip
        runs, run_bytes = _runs(matrix.shape, matrix.strides, width)
        speeds[order] = runs * run_bytes / _transfers_s(GROQCHIP1, runs, run_bytes)
    ratio = speeds["F"] / speeds["C"]
    where = f"{columns:,} columns a chip; every run of bytes is a transfer of 10 us and 24 GB/s"
    ok = 0.1 <= ratio / 154 <= 10
    yield Row("V29", "column- over row-major weight stream", 154, ratio, "factor of 10", ok,
              ISCA22, where)  # fmt: skip


def _runs(shape: tuple[int, ...], strides: tuple[int, ...], width: int) -> tuple[int, int]:
    """(number, bytes) of the contiguous runs of an array."""
    run, count = width, 1
    for stride, length in sorted(zip(strides, shape, strict=True)):
        if stride == run:
            run *= length
        else:
            count *= length
    return count, run


def _transfers_s(spec: ChipSpec, runs: int, run_bytes: int) -> float:
    return runs * host_transfer_s(spec, run_bytes)
