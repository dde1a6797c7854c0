"""What one chip holds of an encoder: sizes in lanes and blocks, its matrices, its vectors."""

from dataclasses import dataclass

from chip.kernels.attention import Heads
from chip.kernels.shape import Blocks, Matrix, halves, runs_of
from chip.program import COLUMN_PAIRS
from chip.spec import EAST, WEST


@dataclass(frozen=True)
class EncoderShape:
    """One chip's layers of an encoder, for sequences of up to `tokens` tokens.

    `first` stages normalise the embeddings, `last` ones pool the tokens to one vector.
    """

    hidden: Blocks
    heads: Heads
    ffn: Blocks
    layers: int
    eps: float
    tokens: int
    first: bool
    last: bool

    @property
    def norms(self) -> int:
        """LayerNorms of the chip; that of the embeddings is the last of them."""
        return 2 * self.layers + self.first

    def biases(self, side: int) -> dict[str, int]:
        """First row of each bias in a layer's part of the side's table, and the rows in "end"."""
        rows, found, at = self.heads.rows, {}, 0
        hidden, ffn = halves(self.hidden.count)[side], halves(self.ffn.count)[side]
        sizes = {} if side == EAST else {"q": rows, "k": rows}
        sizes |= {"o": len(hidden), "up": len(ffn), "down": len(hidden)}
        for key, size in sizes.items():
            found[key] = at
            at += size
        return found | {"end": at}


def encoder_matrices(shape: EncoderShape, depth: int) -> list[Matrix]:
    """Weight matrices of a layer; `depth` accumulators hold the sums of a run."""
    limit = max(1, depth // shape.tokens)
    heads, hidden = shape.heads, shape.hidden
    rows = runs_of(range(heads.rows), limit)
    words = heads.row_lanes // COLUMN_PAIRS
    found = [
        Matrix(name, side, hidden.count, rows, words)
        for name, side in (("q", WEST), ("k", WEST), ("v", EAST))
    ]
    sizes = (("o", heads.packs, hidden), ("up", hidden.count, shape.ffn))
    for name, inputs, out in (*sizes, ("down", shape.ffn.count, hidden)):
        for side, part in zip((EAST, WEST), halves(out.count), strict=True):
            matrix = Matrix(
                f"{name}{side}", side, inputs, runs_of(part, limit), out.width // COLUMN_PAIRS
            )
            found.append(matrix)
    return found
