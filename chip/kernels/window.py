"""Which blocks of a KV cache attention reads, where a row looks back a window of tokens only.

New tokens of a launch are in the last block of its context. The blocks that hold a window before
them are few, however long the context is, so the cache is a ring of these: block b of a sequence
rests in block b % `kept`. What is left of older tokens is masked, as their words are now those of
tokens that are yet to come.
"""

from dataclasses import dataclass

from chip.kernels.lanes import LANES


@dataclass(frozen=True)
class Window:
    """The tokens that a row looks back at, itself among them; without a number all of them."""

    tokens: int | None = None

    @property
    def mask(self) -> str:
        """The buffer of its mask."""
        return "mask" if self.tokens is None else f"mask.{self.tokens}"

    @property
    def maps(self) -> str:
        """The buffer of the cache words of new tokens."""
        return "maps" if self.tokens is None else f"maps.{self.tokens}"

    def blocks(self, context: int) -> int:
        """Blocks that a launch reads whose last row is in block `context` - 1: those it keeps too.

        >>> Window(8).blocks(13), Window(8).blocks(1), Window(322).blocks(13), Window().blocks(13)
        (2, 1, 3, 13)
        """
        if self.tokens is None:
            return context
        return min(context, 1 - (1 - self.tokens) // LANES)

    def value_blocks(self, context: int) -> int:
        """Blocks of values that are kept as they come, for launches up to a context.

        The values of older ones are there transposed. One more than the newest lets a sequence go
        back some tokens to the block before.
        """
        return min(self.blocks(context), 2)

    def maps_of(self, context: int) -> dict[str, int]:
        """The buffers of the cache words of new tokens, of keys and of values; blocks of either.

        >>> Window().maps_of(2), Window().maps_of(13)
        ({'maps': 2}, {'maps': 13, 'maps.values': 2})
        """
        kept, values = self.blocks(context), self.value_blocks(context)
        return {self.maps: kept} | ({f"{self.maps}.values": values} if values < kept else {})

    def spots(self, context: int, most: int) -> tuple[int, ...]:
        """Where the blocks that a launch reads rest, in order, in a cache for `most` blocks."""
        kept = self.blocks(most)
        return tuple(block % kept for block in range(context - self.blocks(context), context))
