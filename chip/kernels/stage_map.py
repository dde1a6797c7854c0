"""The memory map of a decoder stage, which every member of its group and every program shares."""

from dataclasses import dataclass, field, replace

from chip.kernels import landing, quantise
from chip.kernels import old_layout as layout
from chip.kernels.memory import Memory
from chip.kernels.shape import (
    DecoderShape,
    Matrix,
    Placed,
    head_matrices,
    layer_matrices,
    query_runs,
)
from chip.schedule import Buffer
from chip.spec import WEST, ChipSpec


@dataclass
class StageMap:
    """Where everything lies; `shapes` are those of the members, equal but for their heads."""

    spec: ChipSpec
    shapes: tuple[DecoderShape, ...]
    matrices: dict[str, Placed] = field(default_factory=dict)
    scales: quantise.Scales = quantise.NO_SCALES

    def __post_init__(self) -> None:
        self.memory = Memory(self.spec)
        self.members = len(self.shapes)
        self._weights()
        layout.place_activations(self.memory, self.shape, self.members)
        layout.place_attention(self.memory, self.shape)
        if self.shape.slots > 1:
            landing.place_landing(self.memory, self.shape)

    @property
    def shape(self) -> DecoderShape:
        """Sizes that all members share; only their head assignment differs."""
        return self.shapes[0]

    @property
    def int8(self) -> bool:
        """Whether matrices are int8, and activations made so for them."""
        return self.shape.int8

    def _weights(self) -> None:
        shape, depth = self.shape, self.spec.accumulator_depth
        norms = (2 * shape.layers + 1) * shape.hidden.count
        self.memory.rows("gamma", (WEST, 0, 0), norms, "f32")
        if shape.biased:
            self.memory.layer_rows("bias", (WEST, 0, 0), shape.bias_rows, shape.layers)
        if self.int8:
            self.scales = quantise.place_scales(self.memory, shape, depth)
        for matrix in head_matrices(shape, depth):  # the largest first: they pack better
            buffer = self.memory.columns(
                matrix.name, matrix.side, matrix.vectors, dtype=matrix.dtype
            )
            self.matrices[matrix.name] = Placed(matrix, buffer)
        for matrix in sorted(layer_matrices(shape, depth), key=lambda m: -m.vectors):
            self.memory.per_layer(
                matrix.name, matrix.side, matrix.vectors, shape.layers, dtype=matrix.dtype
            )
            for layer in range(shape.layers):
                name = f"{layer}.{matrix.name}"
                self.matrices[name] = Placed(matrix, self.memory[name])

    def matrix(self, name: str, member: int) -> Matrix:
        """The matrix `name` as a member holds it: query heads may meet other KV heads there."""
        matrix = self.matrices[name].matrix
        if matrix.name != "q":
            return matrix
        limit = max(1, self.spec.accumulator_depth // self.shape.chunk)
        return replace(matrix, runs=query_runs(self.shapes[member].heads, limit))

    def moved_to(self, index: int, address: int, layer: int, slot: int) -> int:
        """Where an address of layer 0, slot 0 lies for another layer and slot."""
        gamma = self.memory["gamma"].region
        if gamma.index <= index < gamma.index + gamma.slices and (
            gamma.address <= address < gamma.address + gamma.words
        ):
            return address + layer * 2 * self.shape.hidden.count
        return self.memory.moved(index, address, slot * self.shape.layers + layer)

    def view(self, name: str, vectors: int) -> Buffer:
        """A buffer cut to the rows a program with fewer tokens uses."""
        buffer = self.memory[name]
        region = buffer.region
        return Buffer(name, type(region)(region.index, region.address, vectors, region.dtype))
