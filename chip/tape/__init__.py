"""Tapes: linked steps written as records, which compiled code runs without Python in between.

`encode` turns the nodes of a stretch of a program into records, `arena` says where its values lie,
`player` binds them to a chip. What has no record stays a Python step between two tapes.
"""

from chip.tape.player import Player

__all__ = ["Player"]
