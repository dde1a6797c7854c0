"""Single flips are corrected by every consumer and counted, double flips are named."""

import pickle
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chip import ecc
from chip.core import Chip
from chip.errors import ChipError, EccError
from chip.faults import Passing
from chip.isa import DTYPES
from chip.program import Region
from chip.spec import TINY
from chip.wire import pack
from tests.chip.chaos import SPAN
from tests.chip.programs import At, at, fill, launch, numbers, packets_for, program, reads, writes

VXM, ALU = TINY.vxm_position, TINY.d_func("vxm.alu")
DATA = st.integers(0, ecc.DATA_MASK)
SUM = [
    *reads(44, 4, 0, 0, 60, VXM, (4, 1, 1)),
    at("vxm:0", 60, "vxm.add", DTYPES.index("f32"), 0, 0, 0, 8, loops=(4, 1, 0)),
    *writes(8, 4, 8, 600, 60 + ALU, VXM, (4, 1, 1)),
]


# --- the code -------------------------------------------------------------------------------
def test_its_columns_are_odd_and_differ():
    assert len(set(ecc.COLUMNS)) == len(ecc.COLUMNS) == ecc.WORD_BITS == 137
    assert all(column.bit_count() % 2 for column in ecc.COLUMNS)
    weights = [row.bit_count() for row in ecc.ROWS]
    assert max(weights) - min(weights) <= 2


@given(DATA)
def test_a_word_as_made_is_right(data):
    assert ecc.decode(ecc.encode(data)) == (data, None)


@given(DATA)
def test_any_one_flip_is_corrected(data):
    word = ecc.encode(data)
    for bit in range(ecc.WORD_BITS):
        assert ecc.decode(word ^ 1 << bit) == (data, bit)


@given(DATA, st.integers(0, ecc.WORD_BITS - 1))
def test_any_two_flips_with_one_of_them_here_are_detected(data, first):
    word = ecc.encode(data) ^ 1 << first
    for second in set(range(ecc.WORD_BITS)) - {first}:
        with pytest.raises(ecc.Uncorrectable):
            ecc.decode(word ^ 1 << second)


def test_all_pairs_of_flips_are_detected():
    syndromes = {a ^ b for a, b in combinations(ecc.COLUMNS, 2)}
    assert not syndromes & {0, *ecc.COLUMNS}


# --- the chip -------------------------------------------------------------------------------
def ready(*placed: At, image: np.ndarray | None = None) -> tuple[Chip, dict]:
    what = program(*placed)
    chip = Chip(what.chip, TINY)
    fill(chip, numbers() if image is None else image, what)
    return chip, packets_for(chip.load("it", pack(what)))


def run(chip: Chip, packets: dict) -> tuple[int, bytes]:
    report, _ = launch(chip, chip.programs["it"], packets)
    return report.corrected, report.digest


def test_a_flip_is_corrected_wherever_its_word_is_consumed():
    clean = run(*ready(*SUM))
    chip, packets = ready(*SUM)
    chip.flip(45, 2, 7, 100)
    assert run(chip, packets) == (2, clean[1])  # both operands of the addition
    assert run(chip, packets) == (2, clean[1])  # the word at rest stays wrong until it is written
    assert (chip.corrected, clean[0]) == (4, 0)


@pytest.mark.parametrize("place", [(45, 4, 7), (9, 2, 0), (12, 0, 0)])
def test_a_word_nobody_consumes_is_not_counted(place):
    chip, packets = ready(*SUM)
    chip.flip(*place, 100)
    assert run(chip, packets)[0] == 0


def test_a_write_makes_new_check_bits():
    chip, packets = ready(*SUM)
    chip.flip(9, 601, 3, 5)
    chip.flip(9, 601, 3, 6)
    assert run(chip, packets)[0] == 0
    assert not chip.faults
    chip.flip(45, 2, 7, 100)
    chip.write(Region(44, 0, 4, "f32"), np.zeros((4, 320), np.float32))
    assert not chip.faults


def test_two_flips_are_an_error_that_names_chip_slice_and_address():
    chip, packets = ready(*SUM)
    chip.flip(46, 3, 19, 0)
    chip.flip(46, 3, 19, 136)
    with pytest.raises(
        EccError, match="chip 3 slice 46 address 3 superlane 19: consumed by vxm:0 at cycle 63"
    ) as caught:
        run(chip, packets)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (EccError, str(caught.value))


def test_the_host_is_a_consumer_too():
    chip, _ = ready(*SUM)
    chip.flip(45, 2, 7, 100)
    chip.read(Region(44, 0, 4, "f32"))
    assert chip.corrected == 1
    chip.flip(45, 2, 7, 101)
    with pytest.raises(EccError, match="slice 45 address 2 superlane 7: the host reads it"):
        chip.read(Region(44, 0, 4, "f32"))


def test_a_flip_on_a_stream_is_seen_downstream_only():
    between = TINY.slice_position(44) + 0  # the slice next to the VXM drives stream 0 there
    for position, seen in ((between, 2), (VXM, 0)):
        chip, packets = ready(*SUM)
        chip.flip_stream(Passing(0, position, 60 + position - VXM, 4), 17)
        assert run(chip, packets)[0] == seen, position
        assert run(chip, packets)[0] == 0  # only in the next launch


def test_a_flip_at_rest_and_one_on_the_way_make_two():
    chip, packets = ready(*SUM)
    chip.flip(44, 1, 4, 17)
    place = Passing(0, TINY.slice_position(44), 61 + TINY.slice_position(44) - VXM, 4)
    chip.flip_stream(place, 18)
    with pytest.raises(EccError, match=r"slice 44 address 1 superlane 4 and stream 0 position 46"):
        run(chip, packets)


def test_gathers_and_scatters_touch_the_words_their_maps_name(addresses):
    source, target = TINY.slice_position(20), TINY.slice_position(24)
    placed = reads(8, 2, 0, 0, 60, source, (4, 3, 1))
    placed.append(at("mem.r:20", 60, "mem.gather", 512, SPAN, 0, 6, loops=(4, 3, 0)))
    placed += writes(22, 1, 6, 0, 60 + TINY.d_func("mem.gather"), source, (4, 3, 1))
    placed += reads(12, 1, 7, 0, 60 + target - source, target, (4, 3, 1))
    args = (100, SPAN, 0, 7)
    placed.append(at("mem.w:24", 60 + target - source, "mem.scatter", *args, loops=(4, 3, 0)))
    offset = int(addresses[8, 2, 16 * 5])
    chip, packets = ready(*placed, image=addresses)
    chip.flip(20, 512 + offset, 5, 3)
    chip.flip(24, 100 + offset, 5, 3)
    chip.flip(24, 100 + (offset + 1) % SPAN, 5, 3)
    times = int((addresses[8, :4, 16 * 5] == offset).sum())
    assert run(chip, packets)[0] == times
    left = {word for word in chip.faults.words if word[0] == 24}
    written = {(24, 100 + int(word), 5) for word in addresses[8, :4, 80]}
    assert left == {(24, 100 + (offset + 1) % SPAN, 5)} - written


def test_flips_that_make_no_sense_are_refused():
    chip, _ = ready(*SUM)
    with pytest.raises(ChipError, match="bit 137 of a word of 137 bits"):
        chip.flip(0, 0, 0, 137)
    with pytest.raises(ChipError, match="no slice 88 address 0"):
        chip.flip(88, 0, 0, 0)
    chip.flip(0, 0, 0, 1)
    chip.flip(0, 0, 0, 1)
    assert not chip.faults
    chip.flip(0, 0, 0, 1)
    chip.flip(0, 0, 0, 2)
    with pytest.raises(ChipError, match="third flipped bit"):
        chip.flip(0, 0, 0, 3)
