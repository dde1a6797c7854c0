"""Launches and linked programs on disk: found again as they were, or not at all."""

import os

import pytest

from chip.errors import ProgramError
from chip.linker.reuse import Linker
from chip.program import Program
from chip.wire import pack, with_header
from cluster.compiler.launch import Launch
from cluster.program_store import ProgramStore

BODY = pack(Program(0, "groqchip1", 0, {}))
LAUNCHES = {
    name: Launch(
        name, 252, 5, {1: with_header(BODY, 1, start), 7: with_header(BODY, 7, start)},
        {1: 30, 7: 40}, {1: 2, 7: 3},
    )
    for name, start in (("a", 252), ("b", 504))
}  # fmt: skip
DAMAGES = [
    lambda data: b"",
    lambda data: data[:-1],
    lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[1:],
    lambda data: b"x\x9c\x03\x00\x00\x00\x00\x01",  # whole, and nothing
]


def never() -> dict[str, Launch]:
    raise AssertionError("made once more")


def test_launches_of_an_equal_key_are_found_and_of_no_other(tmp_path):
    store = ProgramStore(tmp_path / "new")
    assert store.launches(("key", 1.0), lambda: LAUNCHES) == LAUNCHES
    found = ProgramStore(tmp_path / "new").launches(("key", 1.0), never)
    assert found == LAUNCHES and [*found] == [*LAUNCHES]
    assert store.launches(("key", 1), dict) == {}
    assert ProgramStore().launches(("key", 1.0), dict) == {}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_counts_as_none_and_is_made_anew(tmp_path, damage):
    store, programs = ProgramStore(tmp_path), [BODY]
    store.launches("key", lambda: LAUNCHES)
    for _ in range(2):
        with store.linked(linker := Linker(), programs):
            linker(BODY)
    for path in tmp_path.iterdir():
        path.write_bytes(damage(path.read_bytes()))
    assert store.launches("key", lambda: LAUNCHES) == LAUNCHES
    with store.linked(linker := Linker(), programs):
        assert not linker._taken
        linker(BODY)
    assert store.launches("key", never) == LAUNCHES
    with store.linked(linker := Linker(), programs):
        assert linker._taken


def test_beyond_its_size_those_go_that_were_not_used_for_longest(tmp_path):
    store = ProgramStore(tmp_path)
    for number, key in enumerate("abc"):
        store.launches(key, lambda: LAUNCHES)
        newest = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (number, number))
    store.launches("a", never)  # so that b is the oldest
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    ProgramStore(tmp_path, size).launches("d", lambda: LAUNCHES)
    for key in "acd":
        store.launches(key, never)
    with pytest.raises(AssertionError):
        store.launches("b", never)


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x92\x91\x92\xa3abc\x01\x90", b"\x92\x90\x91\x01"]
)
def test_what_is_no_linked_program_is_refused(data):
    with pytest.raises(ProgramError, match="corrupt"):
        Linker().take(data)
