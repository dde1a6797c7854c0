"""Assembly text to programs and back: `assemble` and `disassemble`, over the registry of ops.

text --parse (lark)--> tree --expand--> lines of each chip --place--> Program per chip
"""

from chip.assembly.assemble import assemble
from chip.assembly.image import Check, Fill, Image, pack_image, unpack_image
from chip.assembly.listing import disassemble

__all__ = [
    "Check",
    "Fill",
    "Image",
    "assemble",
    "disassemble",
    "pack_image",
    "unpack_image",
]
