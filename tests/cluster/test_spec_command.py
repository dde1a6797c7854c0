"""`lpu spec`, and other chips in `lpu run`."""

import json

import pytest

from chip.spec import SPECS
from cluster.cli import main
from cluster.model.reference import Reference
from tests.cluster.tiny import tiny_weights

RUN = ["run", "tiny", "--prompt", "hi", "--max-new-tokens", "2", "--json"]


def result(capsys, *arguments: str) -> dict:
    assert main(arguments) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", SPECS)
def test_a_chip_is_printed_with_all_its_fields_and_totals(name, capsys):
    report = result(capsys, "spec", name, "--json")
    assert report["name"] == name
    assert report["derived"]["sram_bytes"] == SPECS[name].sram_bytes
    assert report["derived"]["sram_bytes_per_cycle"] == 640 * SPECS[name].slices
    assert set(report["sources"]) == set(report["fields"]) - {"name"}
    assert main(["spec", name]) == 0
    text = capsys.readouterr().out
    assert all(field in text for field in report["sources"])
    assert f"{SPECS[name].sram_bytes:,} B" in text


def test_without_a_name_the_chips_are_listed(capsys):
    assert result(capsys, "spec", "--json") == {"specs": list(SPECS)}
    assert main(["spec"]) == 0
    text = capsys.readouterr().out
    assert all(f" {name} " in text for name in SPECS)


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "tiny"\nclock_hz = 1_800_000_000\n[d_func_cycles]\n"mem.read" = 7\n')
    return str(path)


def test_a_model_runs_on_every_chip_and_says_the_same(capsys, mine):
    expected = Reference(tiny_weights(), context=320).generate([*b"hi"], 2)
    cycles = {}
    for name in ("lp30", mine):
        report = result(capsys, *RUN, "--tp", "2", "--spec", name)
        assert report["output_ids"] == expected
        cycles[name] = report["emulated"]["decode_cycles"][0]
        assert report["emulated"]["clock_hz"] == (
            1_800_000_000 if name == mine else SPECS[name].clock_hz
        )
    assert cycles["lp30"] != cycles[mine]  # a cable takes as many seconds, so other cycles


def refused(capsys, *arguments: str) -> str:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


def test_a_chip_the_kernels_cannot_serve_says_what_it_lacks(capsys, tmp_path):
    path = tmp_path / "mine.toml"
    for text, message in {
        "lanes = 160": "lanes = 160 cannot run a model: the decoder kernels are written for 320",
        "hemisphere_slices = 40": "the decoder kernels need 44",
        "accumulator_depth = 16": "the decoder kernels need 32",
        "c2c_ports = 1": "uses 7 ports of a chip, mine has 1",
    }.items():
        path.write_text(text)
        assert message in refused(capsys, *RUN, "--tp", "2", "--spec", str(path))


def test_wrong_files_are_one_line(capsys, tmp_path):
    assert "No such file" in refused(capsys, "spec", str(tmp_path / "absent.toml"))
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    assert "Is a directory" in refused(capsys, "spec", str(folder))
    assert "did you mean 'lp30'" in refused(capsys, "spec", "lp3")
