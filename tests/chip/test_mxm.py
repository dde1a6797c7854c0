"""Formats of the MXM: int8 on single planes, planes in turn, fp8; exact and as the naive chip."""

import numpy as np
import pytest

from chip.core import Chip
from chip.isa import FORMATS, NO_STREAM, NUMPY_TYPES, SUMS
from chip.isa.mxm import ADD, PREPARE, SET
from chip.numerics.fp8 import decode
from chip.program import Region, word_columns
from chip.spec import EAST, TINY, WEST
from tests.chip.naive import decoded
from tests.chip.programs import At, agree, at, numbers, program
from tests.chip.test_naive import reads, stored, writes

BYTEWISE = [name for name in FORMATS if name != "f16"]
ABC, ACC = TINY.d_func("mxm.abc"), TINY.d_func("mxm.acc")
LOAD = 200


def tiles(format: str, side: int, words: int, count: int, *, planes=1) -> list[At]:
    """`planes` tiles into one plane after the other, by one LW; `count` vectors meet them all."""
    kind, position = FORMATS.index(format), TINY.edge_position("mxm", side)
    base, code = 44 * side, 32 * side
    turns = (planes, words, words)
    placed = reads(base + 16, 16, code + 16, 100, LOAD, position, (turns, (words, 1, 1)))
    lw = ((planes, words, 320), (words, 1, 16))
    placed.append(at(f"mxm.lw:{side}", LOAD, "mxm.lw", kind, 0, code + 16, loops=lw))
    iw = ((planes, words, 1), (1, 1, 0))
    placed.append(at(f"mxm.iw:{side}", LOAD + words, "mxm.iw", kind, 0, 16 * words, loops=iw))
    start = LOAD + words * planes + 1
    placed += reads(base + 4, 1, code, 0, start, position, (count, 1, 1))
    for plane in range(planes):
        unit, out = side + 2 * plane, 32 - code + 4 * plane
        abc, acc, loops = f"mxm.abc:{unit}", f"mxm.acc:{unit}", (count, 1, 1)
        placed.append(at(abc, start, "mxm.abc", kind, code, loops=(count, 1, 0)))
        placed.append(at(acc, start + ABC, "mxm.acc", kind, SET, 0, out, loops=loops))
        done, first = start + ABC + ACC, base + 8 + 24 * plane
        placed += writes(first, 4, out, 600, done, position, loops)
    return placed


def columns(format: str, side: int, words: int, first: int = 100) -> np.ndarray:
    """The weights of a tile as numbers [columns, lanes], from the test image."""
    planes = numbers()[44 * side + 16 : 44 * side + 32, first : first + words]
    found = decoded(planes.transpose(1, 0, 2), FORMATS.index(format))
    return found.reshape(words * 16, -1)


@pytest.mark.parametrize("side", [EAST, WEST])
@pytest.mark.parametrize("format", BYTEWISE)
def test_a_plane_takes_a_vector_every_cycle(format, side):
    agree(program(*tiles(format, side, 3, 5)))


@pytest.mark.parametrize("side", [EAST, WEST])
def test_int8_products_are_exact(side):
    after = agree(program(*tiles("i8", side, 20, 4)))
    x = numbers()[44 * side + 4, :4].view(np.int8).astype(np.int64)
    exact = x @ columns("i8", side, 20).astype(np.int64).T
    assert (stored(after, 44 * side + 8, slice(600, 604), "<i4") == exact).all()


def test_both_planes_of_a_side_work_at_once_on_weights_that_load_in_turn():
    after = agree(program(*tiles("i8", EAST, 20, 6, planes=2)))
    x = numbers()[4, :6].view(np.int8).astype(np.int64)
    for plane, index in enumerate((8, 32)):
        exact = x @ columns("i8", EAST, 20, 100 + 20 * plane).astype(np.int64).T
        assert (stored(after, index, slice(600, 606), "<i4") == exact).all()


def test_all_four_planes_work_at_once():
    agree(program(*(p for side in (EAST, WEST) for p in tiles("i8", side, 2, 8, planes=2))))


def test_int8_sums_accumulate_exactly_beyond_what_fp32_holds():
    placed = [
        p for p in tiles("i8", EAST, 20, 1) if "acc" not in p.queue and "mem.w" not in p.queue
    ]
    placed = [p for p in placed if p.queue not in ("mxm.abc:0", "mem.r:4")]
    position, count, kind = TINY.edge_position("mxm", EAST), 40, FORMATS.index("i8")
    image = numbers().copy()
    image[4, 0], image[16:32, 100:120] = 0x81, 0x7F  # -127 x 127, 320 lanes, 40 times
    image[16:32, 100:120, 0] = 0x7E
    placed += reads(4, 1, 0, 0, 221, position, (count, 1, 0))
    placed.append(at("mxm.abc:0", 221, "mxm.abc", kind, 0, loops=(count, 1, 0)))
    for n in range(count):
        mode, out = (SET if n == 0 else ADD), (32 if n == count - 1 else NO_STREAM)
        placed.append(at("mxm.acc:0", 221 + ABC + n, "mxm.acc", kind, mode, 7, out))
    placed += writes(8, 4, 32, 600, 221 + ABC + ACC + count - 1, position, (1, 1, 0))
    total = stored(agree(program(*placed), image), 8, slice(600, 601), "<i4")
    assert (total == count * -127 * (127 * 319 + 126)).all()
    assert float(np.float32(total[0, 0])) != total[0, 0]


@pytest.mark.parametrize("launches", [1, 2])
def test_constant_int8_columns_are_kept_between_launches(launches):
    region = Region(16, 100, 48, "i8", "columns")
    agree(program(*tiles("i8", EAST, 3, 5), constants=(region,)), launches=launches)


@pytest.mark.parametrize("format", FORMATS)
def test_the_host_writes_columns_where_loads_find_them(format):
    count, group = 40, word_columns(format)
    chip, region = Chip(0, TINY), Region(16, 7, count, format, "columns")
    dtype = NUMPY_TYPES[format]
    values = np.arange(count * 320).astype(dtype).reshape(count, 320)
    chip.write(region, values)
    for number, vector in enumerate(values):
        index, word = 16 + number % group * dtype.itemsize, 7 + number // group
        assert (chip.sram.typed(index, dtype)[word] == vector).all()


@pytest.mark.parametrize("format", ["e4m3", "e5m2"])
def test_every_fp8_value_is_what_the_naive_chip_says(format):
    values = np.arange(256, dtype=np.uint8)
    wanted = decoded(values, FORMATS.index(format)).astype(np.float16)
    assert np.array_equal(decode(format, values), wanted, equal_nan=True)


def test_fp8_reaches_as_far_as_its_specification_says():
    finite = {name: decode(name, np.arange(128, dtype=np.uint8)) for name in ("e4m3", "e5m2")}
    assert np.nanmax(finite["e4m3"]) == 448
    assert finite["e4m3"][1] == 2.0**-9
    assert finite["e5m2"][np.isfinite(finite["e5m2"])].max() == 57344
    assert finite["e5m2"][1] == 2.0**-16


@pytest.mark.parametrize("format", FORMATS)
def test_products_have_the_type_of_their_sums(format):
    ones = np.ones((16, 320), NUMPY_TYPES[format])
    assert PREPARE[format](ones).dot(ones).dtype == NUMPY_TYPES[SUMS[format]]
