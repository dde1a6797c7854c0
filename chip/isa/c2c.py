"""C2C: one 320-byte vector out of or into the chip per instruction; even ports east, odd west."""

import numpy as np
import numpy.typing as npt

from chip.isa.op import op

Bytes = npt.NDArray[np.uint8]


@op("c2c.send", "c2c.s", "a:in.u8", "Send", role="send")
def send(a: Bytes) -> Bytes:
    """Put the vector passing on a stream onto the link."""
    return a


@op("c2c.receive", "c2c.r", "out:out.u8", "Receive", "c2c.receive", role="receive")
def receive(packet: Bytes) -> Bytes:
    """Drive the vector that arrives from the link in this cycle onto a stream."""
    return packet


@op("c2c.transmit", "icu", "ports:int", "Transmit", steers="transmit")
def transmit(ports: int) -> tuple[int, ...]:
    """Tell the neighbours at these ports (a bit mask), at an epoch boundary, that programs start.

    A notice of the link hardware [ISCA22]: it is there one HAC-to-HAC latency later.
    """
    return tuple(port for port in range(ports.bit_length()) if ports >> port & 1)


@op("c2c.await", "icu", "port:int cycle:int", "Receive", steers="await")
def await_start(cycle: int) -> int:
    """Wait for the neighbour's Transmit, which comes at `cycle` of the launch.

    [ISCA22] calls this Receive, too; it has a name of its own as it waits and carries no vector.
    """
    return cycle
