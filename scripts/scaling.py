"""Scaling experiment: speed over chips and actors, emulated and on the host.

    python scripts/scaling.py --out scaling [--chips 1 2 4 8] [--modes depth] [--packs 1 auto]
    ray job submit --working-dir . -- python scripts/scaling.py --out /shared/scaling --machine ray

`strong`: the same model cut over more and more chips, as tp x pp of the planner's choice. `depth`:
the model grows with the chips, a layer per chip, so that the work of each stays the same. `batch`:
it grows, and as many sequences are in flight as stages; on up to 16 chips, as each holds programs
for every sequence.

Every case is a row of FOLDER/scaling.csv, written as soon as it is known; what is there already is
not run again. The plot, scaling.svg, is drawn anew after each run. Nothing but `--out` is written.
"""

import argparse
import csv
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

MODES = ["strong", "depth", "batch"]
BATCH_CHIPS = 16  # at most, in mode batch
COUNTS = [1, 2, 4, 8, 16, 32, 64, 128, 256]
PROMPT_IDS = (1, 5, 9, 20, 3)
KEY = ("mode", "model", "chips", "machine", "pack")
COLUMNS = (
    *KEY, "tp", "pp", "actors", "hosts", "sequences", "emulated_tokens_per_s", "host_tokens_per_s",
    "emulated_efficiency", "host_efficiency", "start_s", "load_s", "first_token_s", "memory_bytes",
    "actor_bytes", "segments", "batches", "messages", "packets", "digest", "skipped",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One row to measure."""

    mode: str
    model: str
    chips: int
    machine: str
    pack: str

    @property
    def key(self) -> tuple[str, ...]:
        return tuple(str(getattr(self, name)) for name in KEY)


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scaling.py", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--model", default="tiny", help="tiny, smollm2 or a GGUF file")
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    parser.add_argument("--chips", nargs="+", type=int, default=COUNTS)
    parser.add_argument("--machine", nargs="+", default=["local", "ray"], choices=["local", "ray"])
    parser.add_argument("--packs", nargs="+", default=["1"], help="chips per actor, or auto")
    parser.add_argument("--address", help="a running Ray cluster; a job finds its own")
    parser.add_argument("--tokens", type=int, default=6)
    return parser.parse_args(arguments)


def wanted(given: argparse.Namespace) -> Iterator[Case]:
    """All cases, small ones first. Only tiny, whose weights are random, can grow with the chips."""
    for chips in given.chips:
        for mode in given.modes:
            for machine in given.machine:
                for pack in given.packs if machine == "ray" else [""]:
                    if mode == "batch" and chips > BATCH_CHIPS:
                        continue
                    if mode == "strong" or given.model == "tiny":
                        yield Case(mode, given.model, chips, machine, pack)


def measure(case: Case, given: argparse.Namespace) -> dict[str, Any]:
    """Run one case; what cannot be, such as a shape the model does not have, is `skipped`."""
    from cluster.errors import ClusterError

    try:
        return _measure(case, given)
    except ClusterError as error:
        return {"skipped": str(error)}


def _measure(case: Case, given: argparse.Namespace) -> dict[str, Any]:
    from cluster.compiler.choose import PlanRequest, choose
    from cluster.compiler.lower import lower
    from cluster.compiler.place import place
    from cluster.machines.checkpoint import Checkpointed
    from cluster.machines.checkpoint_store import CheckpointStore
    from cluster.machines.launch_log import LaunchLog
    from cluster.machines.machine import LocalMachine
    from cluster.process import peak_rss_bytes

    weights, request = _model(case, PlanRequest)
    choice = choose(weights.model, request)
    placement = place(choice.plan, choice.graph, choice.topology)
    lowered = lower(choice.plan, placement, choice.graph, weights)
    if case.machine == "ray":
        from cluster.machines.ray.ray_machine import RayMachine

        pack = case.pack if case.pack == "auto" else int(case.pack)
        machine = LaunchLog(
            Checkpointed(RayMachine(pack, given.address), CheckpointStore(None), 16)
        )
    else:
        machine = LaunchLog(LocalMachine())
    try:
        timed = _timed_together if choice.plan.slots > 1 else _timed
        row = timed(lowered, machine, given.tokens)
        memory = peak_rss_bytes() + machine.worker_bytes()
        row |= {"actors": machine.actors, "memory_bytes": memory, **machine.costs()}
    finally:
        machine.close()
    return row | {"tp": choice.plan.tp, "pp": choice.plan.pp, "sequences": choice.plan.slots}


def _model(case: Case, request: Any) -> tuple[Any, Any]:
    from cluster.model.known import changed_model
    from cluster.model.load import load_model
    from cluster.model.weights.synthetic import SyntheticWeights

    if case.mode != "strong":
        model = changed_model("tiny", num_hidden_layers=case.chips)
        together = case.chips if case.mode == "batch" else 1
        return SyntheticWeights(model), request(tp=1, pp=case.chips, batch=together)
    return load_model(case.model).weights, request(chips=case.chips)


def _timed(lowered: Any, machine: Any, count: int) -> dict[str, Any]:
    from cluster.generation.sampling import Sampling
    from cluster.runs.report import launch_s
    from cluster.serving.engine import PipelineRunner

    begun, parts = time.perf_counter(), {}

    def progress(what: str, _done: int, _total: int) -> None:
        parts[what] = time.perf_counter() - begun

    machine.load(lowered, progress)
    loaded_s = time.perf_counter() - begun
    runner, at = PipelineRunner(lowered, machine), []
    for _ in runner.generate(PROMPT_IDS, count, Sampling(), frozenset()):
        at.append(time.perf_counter() - begun)
    decode = machine.entries[-(count - 1) :]
    return {
        "start_s": parts.get("start", 0.0),
        "load_s": loaded_s,
        "first_token_s": at[0],
        "host_tokens_per_s": 1 / median(entry.wall_s for entry in decode),
        "emulated_tokens_per_s": 1 / median(launch_s(lowered.plan.spec, e) for e in decode),
        "digest": runner.digest.hexdigest(),
    }


def _timed_together(lowered: Any, machine: Any, count: int) -> dict[str, Any]:
    """A sequence for each stage, all at once: tokens/s of all while every slot decodes."""
    from cluster.generation.sampling import Sampling
    from cluster.serving.engine import PipelineRunner
    from cluster.serving.requests import Request
    from cluster.serving.scheduler import steady_tokens_per_s

    begun = time.perf_counter()
    machine.load(lowered, lambda *_: None)
    loaded_s = time.perf_counter() - begun
    slots, runner, at = lowered.plan.slots, PipelineRunner(lowered, machine), []
    requests = [Request(PROMPT_IDS, count) for _ in range(slots)]
    for _ in runner.answer(requests, Sampling().pick, frozenset()):
        at.append(time.perf_counter() - begun)
    return {
        "load_s": loaded_s,
        "first_token_s": at[0],
        "host_tokens_per_s": (len(at) - 1) / (at[-1] - at[0]),
        "emulated_tokens_per_s": steady_tokens_per_s(requests, slots),
        "digest": runner.digest.hexdigest(),
    }


def known(path: Path) -> dict[tuple[str, ...], dict[str, str]]:
    """The rows of the table, by key."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {tuple(row[name] for name in KEY): row for row in csv.DictReader(file)}


def write(path: Path, rows: dict[tuple[str, ...], dict[str, str]]) -> None:
    """Write the whole table, beside it first; efficiencies are those against the fewest chips."""
    first: dict[tuple[str, ...], dict[str, str]] = {}
    for row in sorted(rows.values(), key=lambda row: int(row["chips"])):
        line = tuple(row[name] for name in KEY if name != "chips")
        if not row["skipped"]:
            base = first.setdefault(line, row)
            for kind in ("emulated", "host"):
                rate = f"{kind}_tokens_per_s"
                gain = float(row[rate]) / float(base[rate])
                more = int(row["chips"]) / int(base["chips"])
                share = {"strong": gain / more, "depth": gain * more, "batch": gain}[row["mode"]]
                row[f"{kind}_efficiency"] = f"{share:.4f}"
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore")
        table.writeheader()
        table.writerows(rows.values())
    partial.replace(path)


def plot(path: Path, rows: dict[tuple[str, ...], dict[str, str]]) -> None:
    """Tokens/s over chips, emulated and on the host, a line per mode, machine and packing."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharex=True)
    for axis, kind in zip(axes, ("emulated", "host"), strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for row in rows.values():
            if not row["skipped"]:
                pack = f", {row['pack']} chips per actor" if row["pack"] else ""
                label = f"{row['model']} {row['mode']}, {row['machine']}{pack}"
                point = int(row["chips"]), float(row[f"{kind}_tokens_per_s"])
                lines.setdefault(label, []).append(point)
        for label, points in sorted(lines.items()):
            axis.plot(*zip(*sorted(points), strict=True), marker="o", label=label)
        axis.set(xscale="log", yscale="log", xlabel="chips", title=f"{kind} tokens/s")
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def main(arguments: Sequence[str]) -> int:
    """Measure what is missing; exit code 1 when a machine gives another digest than the other."""
    given = options(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "scaling.csv"
    rows = known(path)
    for case in wanted(given):
        if case.key in rows:
            continue
        found = measure(case, given)
        rows[case.key] = {name: str(found.get(name, getattr(case, name, ""))) for name in COLUMNS}
        write(path, rows)
        rate = found.get("skipped") or f"{found['host_tokens_per_s']:.2f} tokens/s here"
        print(*case.key, rate, flush=True)
    plot(given.out / "scaling.svg", rows)
    digests: dict[tuple[str, ...], set[str]] = {}
    for row in rows.values():
        if not row["skipped"]:
            digests.setdefault((row["mode"], row["model"], row["chips"]), set()).add(row["digest"])
    different = [key for key, found in digests.items() if len(found) > 1]
    for key in different:
        print(f"digests differ: {' '.join(key)}", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
