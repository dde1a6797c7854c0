"""`lpu isa`: the reference lists every op, and says what the op itself says."""

import json

import pytest

from chip.isa import LOOP_NAMES, OPS
from chip.spec import GROQCHIP1
from cluster.cli import main
from cluster.commands.isa import WRITTEN
from tests.cluster.test_cli import complaint


def test_every_op_is_listed_with_its_published_name(capsys):
    assert main(["isa", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {op["name"]: op["published"] for op in report["ops"]} == {
        op.name: op.published for op in OPS.values()
    }
    assert report["loops"] == LOOP_NAMES
    assert main(["isa"]) == 0
    text = capsys.readouterr().out
    assert all(f" {name} " in text for name in OPS)


@pytest.mark.parametrize("name", OPS)
def test_an_op_is_explained_in_full(name, capsys):
    op = OPS[name]
    assert main(["isa", name]) == 0
    text = capsys.readouterr().out
    assert op.doc in text and op.published in text
    assert all(f" {operand.name} " in text for operand in op.operands)
    assert {operand.kind for operand in op.operands} <= set(WRITTEN)
    if op.timing:
        assert f"{GROQCHIP1.d_func(op.timing)} cycles after issue" in text


def test_units_and_wrong_names(capsys):
    assert main(["isa", "mxm", "--json"]) == 0
    names = [op["name"] for op in json.loads(capsys.readouterr().out)["ops"]]
    assert names == [name for name in OPS if name.startswith("mxm.")]
    assert "did you mean 'vxm.rsqrt'" in complaint(capsys, "isa", "vxm.rsqt")
    assert "known: c2c, icu, mem, mxm, sxm, vxm" in complaint(capsys, "isa", "qqq")
