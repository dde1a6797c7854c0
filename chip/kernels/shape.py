"""What one chip holds of a decoder: sizes in lanes and blocks, and its weight matrices."""

from dataclasses import dataclass

from chip.kernels.attention import Heads
from chip.program import word_columns
from chip.schedule import Buffer
from chip.spec import EAST, WEST

LANES = 320


@dataclass(frozen=True)
class Blocks:
    """A dimension cut into `count` blocks of `width` lanes, the last of them partly padding."""

    total: int
    count: int
    width: int


def blocks(total: int, dtype: str = "f16") -> Blocks:
    """Cut `total` elements as evenly as words of columns allow, at most 320 lanes a block."""
    count, group = -(-total // LANES), word_columns(dtype)
    width = -(-total // (count * group)) * group
    return Blocks(total, count, width)


@dataclass(frozen=True)
class DecoderShape:
    """One chip's share of a stage: `layers` layers, then the LM head if `vocab` is given.

    `context` tokens of KV cache, a multiple of 320; `chunk` tokens per prefill launch. `biased`
    adds a bias to queries, keys and values; `activation` is that of the gate, silu or gelu.
    `weights` is their MXM type: with "i8", activations are made int8 before each of the matrices.
    `slots` sequences have caches of their own.
    """

    hidden: Blocks
    heads: Heads
    ffn: Blocks
    vocab: Blocks | None
    layers: int
    eps: float
    context: int
    chunk: int
    biased: bool = False
    activation: str = "silu"
    weights: str = "f16"
    slots: int = 1

    @property
    def int8(self) -> bool:
        """Whether matrices and what meets them are int8."""
        return self.weights == "i8"

    @property
    def bias_rows(self) -> int:
        """Rows of a layer's biases: of each query head, each row of keys, each of values."""
        return len(self.heads.kv_of) + 2 * self.heads.rows if self.biased else 0


@dataclass(frozen=True)
class Matrix:
    """A weight matrix at rest on one side: runs of output blocks, each (first, count, column).

    Column data order: run, input block, output block, `words` words of columns: 8 of fp16, 16 of
    int8. The columns of a run enter the array at `column`.
    """

    name: str
    side: int
    inputs: int
    runs: tuple[tuple[int, int, int], ...]
    words: int
    dtype: str = "f16"

    @property
    def outputs(self) -> int:
        return sum(count for _, count, _ in self.runs)

    @property
    def vectors(self) -> int:
        return self.inputs * self.outputs * self.words * word_columns(self.dtype)


@dataclass(frozen=True)
class Placed:
    """A matrix and the buffer it rests in."""

    matrix: Matrix
    buffer: Buffer


def halves(count: int) -> tuple[range, range]:
    """Output blocks of the east and of the west array."""
    east = -(-count // 2)
    return range(east), range(east, count)


def runs_of(outputs: range, limit: int, column: int = 0) -> tuple[tuple[int, int, int], ...]:
    """Cut output blocks into runs of at most `limit`, so that their sums fit the accumulators."""
    starts = range(outputs.start, outputs.stop, limit)
    return tuple((s, min(limit, outputs.stop - s), column) for s in starts)


def layer_matrices(shape: DecoderShape, depth: int) -> list[Matrix]:
    """Weight matrices of a layer; `depth` accumulators hold the sums of a run for a chunk."""
    limit, kind = max(1, depth // shape.chunk), shape.weights
    group = word_columns(kind)
    heads, width = shape.heads, shape.hidden.width // group
    head_words = heads.head_lanes // group
    found = [Matrix("q", EAST, shape.hidden.count, query_runs(heads, limit), head_words, kind)]
    rows = runs_of(range(heads.rows), limit)
    for name in ("k", "v"):
        words = heads.row_lanes // group
        found.append(Matrix(name, WEST, shape.hidden.count, rows, words, kind))
    for name, inputs in (("o", heads.packs), ("down", shape.ffn.count)):
        for side, part in zip((EAST, WEST), halves(shape.hidden.count), strict=True):
            found.append(Matrix(f"{name}{side}", side, inputs, runs_of(part, limit), width, kind))
    ffn = runs_of(range(shape.ffn.count), limit)
    for name, side in (("gate", EAST), ("up", WEST)):
        words = shape.ffn.width // group
        found.append(Matrix(name, side, shape.hidden.count, ffn, words, kind))
    return found


def head_matrices(shape: DecoderShape, depth: int) -> list[Matrix]:
    """The LM head, half of its blocks on each side; it only ever sees one token."""
    if shape.vocab is None:
        return []
    words = shape.vocab.width // word_columns(shape.weights)
    return [
        Matrix(f"head{side}", side, shape.hidden.count, runs_of(part, depth), words, shape.weights)
        for side, part in zip((EAST, WEST), halves(shape.vocab.count), strict=True)
    ]


def query_runs(heads: Heads, limit: int) -> tuple[tuple[int, int, int], ...]:
    """Runs of query heads that share a KV head: they land in that head's lanes of a cache row."""
    found: list[tuple[int, int, int]] = []
    for kv in sorted(set(heads.kv_of)):
        inside = [h for h, other in enumerate(heads.kv_of) if other == kv]
        column = kv % heads.per_row * heads.head_lanes
        found += runs_of(range(inside[0], inside[-1] + 1), limit, column)
    return tuple(found)
