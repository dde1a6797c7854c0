"""What ops pass to each other: values with named dimensions, and the weights that they read."""

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Dim:
    """A named dimension; `rows` has size 0, as each launch has its own number of them."""

    name: str
    size: int


ROWS = Dim("rows", 0)
# What tensor parallelism may cut, by name; of experts that are spread, in parts of a group.
SHARDED = ("heads", "kv_heads", "ffn", "expert_ffn", "vocab")
WHOLE = ("experts", "chosen")  # what may stand before it: each of these is cut alike
INTEGERS = ("i8", "i16")  # types of values that meet int8 weights


@dataclass(frozen=True)
class Value:
    """A result of an op, [rows, *dims]; `i8` and `i16` are integers with a step for each row."""

    name: str
    dims: tuple[Dim, ...]
    dtype: str = "f32"

    @property
    def width(self) -> int:
        """Elements of a row."""
        return prod(dim.size for dim in self.dims)

    @property
    def integers(self) -> bool:
        """Whether it is integers."""
        return self.dtype in INTEGERS


@dataclass(frozen=True)
class Weight:
    """A parameter by its name in the layer: [*out, *inner], a vector if there is no `inner`.

    `rotary` says that the last of `out` is turned in pairs, so that a source may have to reorder
    it: pairs are adjacent here.
    """

    name: str
    out: tuple[Dim, ...]
    inner: tuple[Dim, ...] = ()
    rotary: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns as every source gives them."""
        sizes = (self.out, self.inner) if self.inner else (self.out,)
        return tuple(prod(dim.size for dim in dims) for dims in sizes)


def names(dims: tuple[Dim, ...]) -> tuple[str, ...]:
    """Names of dimensions, in order."""
    return tuple(dim.name for dim in dims)
