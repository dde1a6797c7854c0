"""The arithmetic of the report."""

import json
from dataclasses import replace

import pytest

from chip.spec import GROQCHIP1
from cluster.generation.sampling import Sampling
from cluster.generation.session import Session
from cluster.machines.ledger import Entry, Ledger
from cluster.machines.machine import LocalMachine
from cluster.runs.report import Host, build_report, emulated, host_shape, summary, transfer_s
from tests.cluster.tiny import lowered, no_progress

SPEC = replace(GROQCHIP1, clock_hz=1_000_000, host_bytes_per_s=1000.0, host_latency_s=0.25)
PREFILL = [
    Entry("prefill@320", 700, 0, 2_000_000, 3.0),
    Entry("decode@320", 300, 200, 500_000, 1.0),
]
DECODE = [
    Entry("decode@320", 300, 200, 500_000, 0.5),
    Entry("decode@320", 300, 200, 1_500_000, 1.5),
]


def test_a_launch_costs_two_latencies_and_its_bytes():
    assert transfer_s(SPEC, PREFILL[0]) == pytest.approx(2 * 0.25 + 0.7)


def test_rates_are_cycles_over_the_clock_plus_the_transfers():
    found = emulated(SPEC, PREFILL, DECODE)
    assert found["prefill_cycles"] == 2_500_000
    assert found["decode_cycles"] == [500_000, 1_500_000]
    assert found["time_to_first_token_s"] == pytest.approx(2.5 + 1.2 + 1.0)
    assert found["prefill_host_transfer_s"] == pytest.approx(2.2)
    assert found["host_transfer_s"] == pytest.approx(1.0)
    assert found["tokens_per_s"] == pytest.approx(1 / (1.0 + 1.0))
    assert "joules_per_token" not in found  # that needs the programs, see decode_energy


def test_a_single_token_has_no_rate():
    found = emulated(SPEC, PREFILL, [])
    assert found["tokens_per_s"] is None and found["decode_cycles"] == []
    assert host_shape(Host("local", 0, {}, 1.0, 1), PREFILL, [])["tokens_per_s"] is None


def test_host_figures_add_up():
    found = host_shape(Host("ray", 3, {"link": 1.5, "start": 2.0}, 9.0, 7), PREFILL, DECODE)
    assert found["load_s"] == 3.5 and found["prefill_s"] == 4.0
    assert found["tokens_per_s"] == pytest.approx(2 / 2.0)


def test_the_summary_of_a_run_names_what_the_json_holds():
    plan = lowered(2, 2, "ring:4")
    machine = Ledger(LocalMachine())
    machine.load(plan, no_progress)
    session = Session(plan, machine)
    spoken = list(session.generate([1, 2, 3], 2, Sampling(), frozenset()))
    host = Host("local", 0, {"link": 1.0}, 2.0, 2**30)
    report = {"prompt_ids": [1, 2, 3], "output_ids": spoken}
    report |= build_report(plan, "ring:4", session, machine.entries, host)
    assert json.loads(json.dumps(report)) == report
    lines = summary(report)
    assert "4 chips on ring:4: 2 stages x tp 2" in lines["plan"]
    assert f"{session.decode_cycles[0]:,} cycles per token" in lines["decode"]
    assert lines["digest"] == session.digest.hexdigest()
    assert [entry.cycles for entry in machine.entries[-1:]] == session.decode_cycles
    assert machine.entries[-1].out_bytes > 0 < machine.entries[0].in_bytes
