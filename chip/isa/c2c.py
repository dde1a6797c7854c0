"""C2C: one 320-byte vector out of or into the chip per instruction; even ports east, odd west."""

import numpy as np
import numpy.typing as npt

from chip.isa.op import op

Bytes = npt.NDArray[np.uint8]


@op("c2c.send", "c2c.s", "a:in.u8", "Send")
def send(a: Bytes) -> Bytes:
    """Put the vector passing on a stream onto the link."""
    return a


@op("c2c.receive", "c2c.r", "out:out.u8", "Receive", timing="c2c.receive")
def receive(packet: Bytes) -> Bytes:
    """Drive the vector that arrives from the link in this cycle onto a stream."""
    return packet
