"""Energy of launches, and the fit of the table."""

import json

import pytest

from chip.energy import GROQCHIP1_ENERGY, Activity, count
from chip.spec import GROQCHIP1
from chip.wire import unpack
from cluster.cli import main
from cluster.energy import Joules, launch_use
from cluster.energy_fit import fit
from tests.cluster.tiny import lowered


def test_the_table_goes_through_the_published_powers():
    found = fit()
    for point in found.points:
        assert point.power_w(found.table) == pytest.approx(point.published_w)
        # the table was fitted when a layer of BERT-base took half as long again, and drew 190 W
        assert point.power_w(GROQCHIP1_ENERGY) == pytest.approx(point.published_w, rel=0.12)
    # From 45 to 14 nm energies fall, by less than ten times. A fit to the layer of today would say
    # 1.1: it is so busy that both published powers are nearly of one activity.
    assert 0.1 < GROQCHIP1_ENERGY.scale < 1


def test_a_launch_counts_every_chip():
    launch = lowered(2, 2, "ring:4").launches["rows1.logits1@320"]
    use = launch_use(launch, GROQCHIP1)
    parts = [count(unpack(data).instructions(), GROQCHIP1) for data in launch.programs.values()]
    assert use.activity == sum(parts, Activity())
    assert use.activity.link_bytes > 0
    assert 0 < use.interval_cycles < max(launch.end_cycles.values())


def test_a_user_alone_pays_for_all_chips():
    one, full = (Joules(GROQCHIP1_ENERGY, 10, 0.5, seconds) for seconds in (4.0, 1.0))
    assert one.chips_j == pytest.approx(0.5 + 4 * 10 * GROQCHIP1_ENERGY.idle_w)
    assert full.chips_j < one.chips_j < one.system_j
    assert one.system_j - one.chips_j == pytest.approx(4 * 10 * 173)


def test_the_command_prints_the_fit(capsys):
    assert main(["energy", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [point["published_w"] for point in report["points"]] == [215, 185]
    assert main(["energy"]) == 0
    assert "scale 0.384 and idle 158.0 W were fitted once" in capsys.readouterr().out
