"""Chips: their totals are the published ones, and anyone can make another."""

import pickle
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chip.core import Chip
from chip.errors import ProgramError, SpecError, UnknownChip
from chip.own_spec import chip_of, find, identity
from chip.rates import c2c_bytes_per_s, rates
from chip.spec import ASSUMED_D_FUNC_CYCLES, GROQCHIP1, LP30, SPECS, TINY, ChipSpec
from chip.wire import pack, unpack
from tests.chip.programs import at, program

PUBLISHED = {  # (chip, rate) -> per second: ISCA20 at 1 GHz, the product brief, Groq 3 LPX
    ("groqchip1", "fp16"): 188e12,
    ("groqchip1", "int8"): 750e12,
    ("groqchip1", "streams"): 18.43e12,
    ("groqchip1-1000mhz", "int8"): 820e12,
    ("groqchip1-1000mhz", "sram"): 55 * 1024 * 1e9,
    ("groqchip1-1250mhz", "int8"): 1000e12,
    ("lp30", "sram"): 150e12,
    ("lp30", "fp8"): 1.2e15,
}


@pytest.mark.parametrize(("chip", "rate"), PUBLISHED)
def test_rates_are_those_published(chip, rate):
    (found,) = (r for r in rates(SPECS[chip]) if r.name == rate)
    assert found.per_s(SPECS[chip].clock_hz) == pytest.approx(PUBLISHED[chip, rate], rel=0.025)


def test_the_groq_3_lpu_has_500_mb_and_96_ports_of_112_gbps():
    assert pytest.approx(500e6, rel=1e-4) == LP30.sram_bytes
    assert c2c_bytes_per_s(LP30) == 2 * 96 * 112e9 / 8
    assert c2c_bytes_per_s(GROQCHIP1) == 480e9  # ISCA20: 3.84 Tb/s both ways


@pytest.mark.parametrize("name", SPECS)
def test_every_number_has_a_source_and_what_has_none_is_called_an_assumption(name):
    spec = SPECS[name]
    named = {field.name for field in fields(spec)}
    assert named - {"name", "notes", "conventions"} == set(spec.sources)
    assert all(spec.sources.values())
    known = ("ISCA20", "ISCA22", "BRIEF", "FLOW", "LPX", "Linley", "assumption", "of tests")
    assert all(source.startswith(known) for source in spec.sources.values())


def test_what_the_vendor_does_not_disclose_of_the_groq_3_lpu_is_an_assumption():
    assert {"clock_hz", "hemisphere_slices", "slice_words", "mxm_planes"} <= set(LP30.assumptions)
    assert not {"lanes", "c2c_ports"} & set(LP30.assumptions)
    assert any("TDP" in text for text in LP30.assumptions)


@given(
    st.integers(10**6, 10**10),
    st.integers(1, 5000),
    st.dictionaries(st.sampled_from(sorted(ASSUMED_D_FUNC_CYCLES)), st.integers(1, 99)),
)
def test_a_program_carries_its_chip(clock_hz, banks, delays):
    spec = replace(
        TINY,
        name="mine",
        clock_hz=clock_hz,
        slice_words=2 * banks,
        d_func_cycles=ASSUMED_D_FUNC_CYCLES | delays,
    )
    assert chip_of(identity(spec)) == spec
    assert unpack(pack(program(spec=identity(spec)))).spec == identity(spec)


def test_a_known_chip_is_carried_by_name_and_a_changed_one_is_not():
    assert identity(TINY) == "tiny"
    assert identity(replace(TINY, clock_hz=10**9)) != "tiny"


def test_a_chip_refuses_a_program_for_one_that_differs_in_anything():
    slow = replace(TINY, d_func_cycles=ASSUMED_D_FUNC_CYCLES | {"mem.read": 9})
    data = pack(program(at("mem.r:0", 0, "mem.read", 0, 0), spec=identity(slow)))
    with pytest.raises(ProgramError, match="is for chip tiny"):
        Chip(0, TINY).load("it", data)
    linked = Chip(0, slow).load("it", data)
    assert linked.end_cycle == 9 + slow.superlanes


TOML = 'base = "tiny"\nslice_words = 2048\n[d_func_cycles]\n"mem.read" = 6\n'


def test_a_toml_file_makes_a_chip(tmp_path):
    (tmp_path / "mine.toml").write_text(TOML)
    spec = find(str(tmp_path / "mine.toml"))
    assert (spec.name, spec.slice_words, spec.d_func("mem.read")) == ("mine", 2048, 6)
    assert spec.d_func("vxm.alu") == TINY.d_func("vxm.alu")
    assert spec.sources["slice_words"] == "mine.toml"
    assert "accumulator_depth" in spec.assumptions and "slice_words" not in spec.assumptions


@pytest.mark.parametrize("file", ["7.toml", "my chip.toml", "é.toml", f"{'x' * 99}.toml"])
def test_any_file_name_will_do(file, tmp_path):
    (tmp_path / file).write_text(TOML)
    assert find(str(tmp_path / file)).slice_words == 2048


BAD = {
    "name = [1]": "name = [1] must be at most 64 letters",
    "lanes = 321": "lanes = 321 must be whole superlanes",
    "lanes = 3.5": "lanes = 3.5 must be an integer",
    "clock_hz = true": "clock_hz = True must be an integer",
    "slice_words = 0": "slice_words = 0 must be an integer of 2 to",
    "slice_words = 1001": "must be whole banks",
    "hemisphere_slices = 42": "must be a multiple of 4",
    "streams = 16": "streams = 16 must be 32",
    "host_latency_s = -1": "must be a positive number",
    "host_latency_s = inf": "must be a positive number",
    'mxm_types = ["f64"]': "must be some of f8, i8, f16",
    "mxm_types = 3": "must be some of",
    "mxm_types = [[]]": "must be some of",
    "slicewords = 4": "is no field of a chip; did you mean slice_words?",
    "notes = 3": "is no field of a chip",
    'base = "tpu"': "base = 'tpu' must be one of groqchip1",
    "base = 1": "base = 1 must be one of",
    'name = "tiny"': "is a known chip; give yours another name",
    "name = 3": "name = 3 must be at most 64 letters, digits",
    'name = "a b"': "must be at most 64 letters, digits",
    "d_func_cycles = 3": "must be a table",
    '[d_func_cycles]\n"mem.read" = 0': "d_func_cycles.mem.read = 0 must be 1 to 10000",
    '[d_func_cycles]\n"mem.think" = 3': "d_func_cycles = 'mem.think' must be all of",
    "lanes = ": "is not TOML",
    "\udcff": "is not TOML",
}


@pytest.mark.parametrize("text", BAD)
def test_a_chip_that_cannot_be_is_refused_in_one_line(text, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SpecError) as caught:
        find(str(path))
    assert BAD[text] in str(caught.value)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_unknown_chips():
    with pytest.raises(UnknownChip, match=r"unknown chip 'groq'; did you mean 'groqchip1'\?"):
        find("groq")
    with pytest.raises(FileNotFoundError):
        find("absent.toml")
    for text in ("{", '{"lanes": 7}', '{"colour": 1, "name": "x"}', "[1]"):
        with pytest.raises((SpecError, UnknownChip)):
            chip_of(text)
    with pytest.raises(SpecError):
        ChipSpec(name="")
