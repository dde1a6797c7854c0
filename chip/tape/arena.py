"""Where the values of a stretch lie: in slots of one arena, from making to last use."""

from dataclasses import dataclass, field

ALIGNMENT = 64


@dataclass
class Arena:
    """First fit; what is given back is joined with its free neighbours."""

    size: int = 0
    _free: list[tuple[int, int]] = field(default_factory=list)  # (offset, end), in order

    def take(self, wanted: int) -> int:
        """Offset of a free slot of `wanted` bytes."""
        wanted = -(-wanted // ALIGNMENT) * ALIGNMENT
        for number, (offset, end) in enumerate(self._free):
            if end - offset >= wanted:
                self._free[number : number + 1] = (
                    [(offset + wanted, end)] if end - offset > wanted else []
                )
                return offset
        if self._free and self._free[-1][1] == self.size:
            offset, _ = self._free.pop()
        else:
            offset = self.size
        self.size = offset + wanted
        return offset

    def give(self, offset: int, size: int) -> None:
        """Take back a slot."""
        end = offset + -(-size // ALIGNMENT) * ALIGNMENT
        spans = sorted([*self._free, (offset, end)])
        joined = [spans[0]]
        for start, stop in spans[1:]:
            if start == joined[-1][1]:
                joined[-1] = (joined[-1][0], stop)
            else:
                joined.append((start, stop))
        self._free = joined
