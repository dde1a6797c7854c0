"""Who must run before whom, on several chips."""

from fractions import Fraction

import pytest

from chip.board import Cable, Facts, wire
from chip.errors import OrderError
from chip.linker import Startup, Transfer


def facts(*, sent: int, received: int, sends_in: int) -> Facts:
    """A chip with a Send in some segment, and a Receive in segment 1; both at port 0."""
    send, receive = Transfer(0, 0, (sent,), sends_in), Transfer(1, 0, (received,), 1)
    return Facts(0, 99, 2, (send,), (receive,), Startup(0), ())


CABLE = Cable(0, 0, 1, 0, 10, Fraction(1))


def test_a_reply_comes_after_what_it_answers():
    chips = {
        0: facts(sent=0, received=30, sends_in=0),
        1: facts(sent=20, received=10, sends_in=1),
    }
    order = [(call.chip, call.segment) for call in wire(chips, (CABLE,)).calls]
    assert order.index((1, 1)) < order.index((0, 1))


def test_packets_that_wait_for_each_other_are_an_error():
    chips = {
        0: facts(sent=0, received=30, sends_in=1),
        1: facts(sent=20, received=10, sends_in=1),
    }
    with pytest.raises(OrderError, match="waits, chip by chip"):
        wire(chips, (CABLE,))
