"""The arithmetic of the report."""

import json
from dataclasses import replace

import pytest

from chip.spec import GROQCHIP1
from cluster.generation.sampling import Sampling
from cluster.machines.launch_log import LaunchEntry, LaunchLog
from cluster.machines.machine import LocalMachine
from cluster.model.load import load_model
from cluster.runs.report import Host, emulated, host_shape, report_of_one, summary, transfer_s
from cluster.serving.engine import PipelineRunner
from tests.cluster.tiny import lowered, no_progress

SPEC = replace(GROQCHIP1, clock_hz=1_000_000, host_bytes_per_s=1000.0, host_latency_s=0.25)
PREFILL = [
    LaunchEntry("rows32.logits0@320", 700, 0, 2_000_000, 3.0),
    LaunchEntry("rows1.logits1@320", 300, 200, 500_000, 1.0),
]
DECODE = [
    LaunchEntry("rows1.logits1@320", 300, 200, 500_000, 0.5),
    LaunchEntry("rows1.logits1@320", 300, 200, 1_500_000, 1.5),
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
    machine = LaunchLog(LocalMachine())
    machine.load(plan, no_progress)
    runner, model = PipelineRunner(plan, machine), load_model("tiny")
    tokens = list(runner.generate([1, 2, 3], 2, Sampling(), frozenset()))
    host = Host("local", 0, {"link": 1.0}, 2.0, 2**30)
    report = report_of_one(model, runner, "ring:4", machine.entries, host)
    assert report["output_ids"] == tokens and report["prompt_ids"] == [1, 2, 3]
    assert json.loads(json.dumps(report)) == report
    lines = summary(report)
    assert "4 chips on ring:4: 2 stages x tp 2" in lines["plan"]
    assert f"{runner.cycles[-1]:,} cycles per token" in lines["decode"]
    hexdigest, about = lines["digest"].split(" ", 1)
    assert hexdigest == runner.digest.hexdigest() and "programs" in about
    assert [entry.cycles for entry in machine.entries] == runner.cycles
    assert machine.entries[-1].out_bytes > 0 < machine.entries[0].in_bytes
