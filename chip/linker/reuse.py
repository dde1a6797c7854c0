"""Linking many programs of which some are equal but for their chip and start cycle."""

import hashlib
from dataclasses import replace

from chip.collection import uncollected
from chip.linker import Linked, link, relocate
from chip.linker.windows import Known
from chip.wire import body_of, header_of, unpack


class Linker:
    """Links programs; those that differ only in chip and start cycle are linked once."""

    def __init__(self) -> None:
        self._programs: dict[bytes, Linked] = {}
        self._stretches = Known()

    def branch(self) -> "Linker":
        """A linker that knows what this one does, and keeps to itself what it adds."""
        other = Linker()
        other._programs, other._stretches = dict(self._programs), self._stretches.copy()
        return other

    @uncollected()
    def __call__(self, data: bytes) -> Linked:
        """Return the linked program; raises the chip package's errors."""
        key = hashlib.sha256(body_of(data)).digest()
        if key not in self._programs:
            self._programs[key] = link(unpack(data), self._stretches)
        linked = self._programs[key]
        chip, start, startup = header_of(data)
        program = replace(linked.program, chip=chip, start_cycle=start, startup=startup)
        return relocate(linked, program)
