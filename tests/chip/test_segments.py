"""Programs are cut at their receives, by dependence and not by time."""

from chip.linker import Linked, Transfer
from chip.spec import EAST, TINY
from tests.chip.programs import At, agree, at, linked, program

PORT = TINY.edge_position("c2c", EAST)
RECEIVE = TINY.d_func("c2c.receive")


def receive(port: int, cycle: int, stream: int, count: int = 1, interval: int = 1) -> At:
    loops = (count, interval, 0)
    return at(f"c2c.r:{port}", cycle, "c2c.receive", stream, loops=loops)


def send(port: int, cycle: int, stream: int) -> At:
    """Send eastward what passed slice 0 so that it gets to the edge in a cycle."""
    return at(f"c2c.s:{port}", cycle, "c2c.send", stream)


def returned(arrival: int, cycle: int, back: int, stream: int) -> list[At]:
    """Keep what a receive drives westward in slice 0, then read it and send it from port 0."""
    away = PORT - TINY.slice_position(0)
    reading = cycle - away - TINY.d_func("mem.read")
    return [
        at("mem.w:0", arrival + RECEIVE + away, "mem.write", back, stream),
        at("mem.r:0", reading, "mem.read", back, 0),
        send(0, cycle, 0),
    ]


def segments(transfers: tuple[Transfer, ...]) -> list[int]:
    return [transfer.segment for transfer in sorted(transfers, key=lambda t: t.cycles)]


def link_and_agree(*placed: At) -> Linked:
    agree(program(*placed))
    return linked(*placed)


def test_what_needs_no_packet_is_in_the_first_segment():
    own = at("mem.r:5", 400, "mem.read", 0, 3)
    ready = link_and_agree(
        receive(0, 10, 32), *returned(10, 300, 0, 32), own, send(2, 405 + PORT - 53, 3)
    )
    assert segments(ready.receives) == [1]
    assert segments(ready.sends) == [1, 0]
    assert len(ready.segments) == 2


def test_receives_without_a_send_between_share_a_segment():
    ready = link_and_agree(receive(0, 10, 32), receive(2, 200, 33), *returned(10, 300, 0, 32))
    assert segments(ready.receives) == [1, 1]
    assert segments(ready.sends) == [1]


def test_a_send_that_leaves_before_the_next_receive_cuts():
    ready = link_and_agree(receive(0, 10, 32), *returned(10, 200, 0, 32), receive(2, 400, 33))
    assert segments(ready.receives) == [1, 2]
    assert segments(ready.sends) == [1]


def test_a_long_receive_does_not_hold_back_what_needs_only_a_short_one():
    """Its last packets may be the answer to the send."""
    ready = link_and_agree(
        receive(2, 5, 33, count=5, interval=100), receive(0, 10, 32), *returned(10, 200, 0, 32)
    )
    assert segments(ready.receives) == [2, 1]
    assert segments(ready.sends) == [1]


def test_a_program_without_links_is_one_segment():
    assert len(linked(at("mem.r:0", 0, "mem.read", 0, 0)).segments) == 1
    assert len(linked().segments) == 1
