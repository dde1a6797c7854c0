"""Tapes: linked steps written as records, which compiled code runs without Python in between.

`plan` says what a tape does when: `order` has products wait for all else, `tasks` finds rows that
threads can share. `encode` writes nodes as records, with `operands` in slots of an `arena`, and
`player` binds these to a chip. What has no record stays a Python step between two tapes.
"""

from chip.tape.player import Player

__all__ = ["Player"]
