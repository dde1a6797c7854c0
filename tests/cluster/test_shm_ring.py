"""Rings between processes of a host: in order, bounded, and never stuck once they are closed."""

import os
import threading

import pytest

from cluster.machines.ray.shm_ring import (
    ChannelClosed,
    ShmRing,
    can_be_shared,
    join_ring,
    make_ring,
)

pytestmark = pytest.mark.skipif(not can_be_shared(), reason="rings are made of Linux's /proc")


def pair(slots: int = 3) -> tuple[ShmRing, ShmRing]:
    writer = make_ring(slots, 100)
    return writer, join_ring(writer.handle())


def test_messages_come_in_order_and_whole():
    writer, reader = pair()
    for number in range(10):
        for size in (0, 1, 100):
            writer.write(bytes([number]) * size)
            assert reader.read() == bytes([number]) * size


def test_another_process_reads_what_was_written():
    there, back = make_ring(2, 1000), make_ring(2, 1000)
    child = os.fork()
    if not child:
        reader, writer = join_ring(there.handle()), join_ring(back.handle())
        for _ in range(20):
            writer.write(reader.read()[::-1])
        os._exit(0)
    for number in range(20):
        there.write(b"message %d" % number)
        assert back.read() == (b"message %d" % number)[::-1]
    assert os.waitpid(child, 0)[1] == 0


def test_a_writer_waits_while_all_slots_are_taken():
    writer, reader = pair(slots=2)
    done = threading.Thread(target=lambda: [writer.write(b"%d" % n) for n in range(3)])
    done.start()
    done.join(0.1)
    assert done.is_alive()
    assert [reader.read() for _ in range(3)] == [b"0", b"1", b"2"]
    done.join()


@pytest.mark.parametrize("waiter", ["reader", "writer"])
@pytest.mark.parametrize("closer", ["reader", "writer"])
def test_who_waits_is_woken_by_a_close_of_either_end(waiter, closer):
    ends = dict(zip(("writer", "reader"), pair(slots=1), strict=True))
    caught = []

    def wait() -> None:
        try:
            if waiter == "reader":
                ends["reader"].read()
            for _ in range(2):
                ends["writer"].write(b"")
        except ChannelClosed as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    ends[closer].close()
    thread.join(10)
    assert caught


def test_the_handle_of_a_ring_that_is_gone_is_an_error():
    writer, reader = pair()
    handle = writer.handle()
    del writer
    with pytest.raises(OSError):
        join_ring(handle)
    reader.close()
