"""Linking many programs of which some are equal but for their chip and start cycle."""

import hashlib
from dataclasses import replace

from chip.collection import uncollected
from chip.linker import Linked, link, relocate
from chip.linker.stored import pack_linked, unpack_linked
from chip.linker.windows import Known
from chip.wire import body_of, header_of, later, unpack


class Linker:
    """Links programs; those that differ only in chip and start cycle are linked once."""

    def __init__(self) -> None:
        self._programs: dict[bytes, Linked] = {}
        self._taken: dict[bytes, Linked] = {}  # whose queues are still to be read
        self._stretches = Known()

    def branch(self) -> "Linker":
        """A linker that knows what this one does, and keeps to itself what it adds."""
        other = Linker()
        other._programs, other._taken = dict(self._programs), dict(self._taken)
        other._stretches = self._stretches.copy()
        return other

    def pack(self) -> bytes:
        """The programs linked so far, for `take` of another linker."""
        return pack_linked(self._programs)

    @uncollected()
    def take(self, data: bytes) -> None:
        """Know the programs that another has packed; raises ProgramError where damaged."""
        self._taken |= unpack_linked(data)

    @uncollected()
    def __call__(self, data: bytes) -> Linked:
        """Return the linked program; raises the chip package's errors."""
        body = body_of(data)
        key = hashlib.sha256(body).digest()
        if key in self._taken:
            taken = self._taken.pop(key)
            program = replace(taken.program, queues=later(body))
            self._programs[key] = replace(taken, program=program)
        if key not in self._programs:
            self._programs[key] = link(unpack(data), self._stretches)
        linked = self._programs[key]
        chip, start, startup = header_of(data)
        program = replace(linked.program, chip=chip, start_cycle=start, startup=startup)
        return relocate(linked, program)
