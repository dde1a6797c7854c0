"""One run: choose a plan, load a machine, generate, report."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from chip.spec import ChipSpec
from cluster.errors import BadValue, PromptTooLong
from cluster.files import check_writable, write_whole
from cluster.generation.sampling import Sampling
from cluster.generation.session import Session
from cluster.lowering.lower import Lowered, lower
from cluster.machines.checkpoint import Checkpointed, Survivor
from cluster.machines.clocked import Clocked
from cluster.machines.ledger import Ledger
from cluster.machines.machine import LINKING, LocalMachine, Machine
from cluster.machines.record import Recorder
from cluster.machines.shelf import Shelf
from cluster.mapping.choice import Choice, Request, choose
from cluster.mapping.placement import place
from cluster.model.load import Model, load_model
from cluster.process import peak_rss_bytes
from cluster.runs.answers import finish_reason
from cluster.runs.clock_report import clock_report
from cluster.runs.display import Bars, Stopwatch, show_note, show_text
from cluster.runs.report import Host, build_report
from cluster.runs.trace import trace
from topology.clocks import ClockSpec

CHECKPOINT_LAUNCHES = 16
NEW_TOKENS = 64  # at most, where --max-new-tokens is not given


@dataclass(frozen=True)
class Options:
    """The command line of a run."""

    model: str
    prompt: str | None
    raw: bool
    prompt_ids: str | None
    prompts: Path | None
    output: Path | None
    concurrency: int
    max_new_tokens: int | None
    temperature: float
    top_p: float
    seed: int
    chips: int | None
    tp: int | None
    pp: int | None
    topology: str | None
    profile: str | None
    links: tuple[str, ...]
    faults: str | None
    spec: str
    weights: str
    context: int
    machine: str
    chips_per_actor: int | str | None
    address: str | None
    checkpoint: Path | None
    checkpoint_every: int
    resume: bool
    drift_ppm: float | None
    jitter_cycles: float | None
    jitter_seed: int
    design_drift_ppm: float | None
    trace: Path | None
    report: Path | None
    record: Path | None
    as_json: bool

    def check(self) -> "Options":
        """Return self; raise BadValue for what can be seen to be wrong before any work."""
        if sum(given is not None for given in (self.prompt, self.prompt_ids, self.prompts)) != 1:
            rule = "give it, --prompt-ids or --prompts, one of the three"
            raise BadValue("--prompt", self.prompt or "", rule)
        if self.concurrency > 1 and not self.prompts:
            raise BadValue("--concurrency", self.concurrency, "needs --prompts FILE")
        if self.output and not self.prompts:
            raise BadValue("--output", self.output, "needs --prompts FILE")
        if self.concurrency > 1 and self.record:
            raise BadValue(
                "--record", self.record, "holds one sequence at a time: no --concurrency"
            )
        for option in ("chips_per_actor", "address"):
            value = getattr(self, option)
            if value is not None and self.machine != "ray":
                raise BadValue(f"--{option.replace('_', '-')}", value, "needs --machine ray")
        for option in ("trace", "report", "output", "record", "checkpoint"):
            folder = option in ("record", "checkpoint")
            check_writable(f"--{option}", getattr(self, option), folder)
        if self.resume and not self.checkpoint:
            raise BadValue("--resume", "", "needs --checkpoint DIR, the folder to go on with")
        Sampling(self.temperature, self.top_p, self.seed)
        return self

    @property
    def sampling(self) -> Sampling:
        """How to choose tokens."""
        return Sampling(self.temperature, self.top_p, self.seed)

    def clock(self, spec: ChipSpec) -> ClockSpec:
        """What the schedule is made for."""
        bare = ClockSpec(hac_period_cycles=spec.hac_period_cycles)
        drift = self.design_drift_ppm
        return bare if drift is None else replace(bare, drift_ppm=drift)

    @property
    def request(self) -> Request:
        """The part that chooses a plan."""
        names = {field.name for field in fields(Request)}
        return Request(**{name: getattr(self, name) for name in names})


def generate(options: Options, start: float, bars: Bars) -> dict[str, Any]:
    """Plan, load, generate; returns the report. `start` is when the command began."""
    watch = Stopwatch(start)
    watch.lap("import")
    model = load_model(options.model, lambda done, total: bars.step("fetch", done, total))
    watch.lap("model")
    prompt = prompt_tokens(options, model)
    choice = choose(model.spec, options.request)
    count = new_tokens(options, len(prompt), choice.plan.context)
    lowered = lower_choice(choice, model, options, bars)
    watch.lap("lower")
    rig = Rig.of(options)
    try:
        load(rig.ledger, lowered, bars, watch)
        say_resumed(options, rig)
        session = Session(lowered, rig.ledger)
        tokens = session.generate(prompt, count, options.sampling, model.tokenizer.stop)
        spoken = _listen(tokens, model, count, bars, quiet=options.as_json)
        host = rig.host(start, watch)
        rig.commit()
    finally:
        rig.ledger.close()
    if options.trace:
        write_whole(options.trace, trace(lowered, rig.ledger.entries[-1].name))
    report = build_report(lowered, choice.topology, session, rig.ledger.entries, host)
    report["plan"]["faults"] = options.faults
    report["clocks"] = clock_report(lowered, rig.clocked)
    return _said(model, prompt, spoken) | report


def lower_choice(choice: Choice, model: Model, options: Options, bars: Bars) -> Lowered:
    """Place a plan and make its programs."""
    bars.step("lower", 0, 0)
    placement = place(choice.plan, choice.graph, choice.topology)
    clock = options.clock(choice.plan.spec)
    return lower(choice.plan, placement, choice.graph, model.weights, clock)


@dataclass
class Rig:
    """The machine that was asked for, on real oscillators, its launches written down."""

    ledger: Ledger
    clocked: Clocked
    recorder: Recorder | None

    @classmethod
    def of(cls, options: Options) -> "Rig":
        """Return it, not yet loaded."""
        bare = make_machine(options)
        recorder = Recorder(bare, options.record) if options.record else None
        really = options.jitter_seed, options.drift_ppm, options.jitter_cycles
        clocked = Clocked(recorder or bare, *really)
        return cls(Ledger(clocked), clocked, recorder)

    def host(self, start: float, watch: Stopwatch) -> Host:
        """What it has cost here since `start`."""
        machine = self.ledger
        wall_s, memory = time.perf_counter() - start, peak_rss_bytes() + machine.worker_bytes()
        return Host(machine.name, machine.actors, watch.parts, wall_s, memory, machine.costs())

    def commit(self) -> None:
        """Give the recording its name, if there is one."""
        if self.recorder:
            self.recorder.commit()


def _said(model: Model, prompt: list[int], spoken: list[int]) -> dict[str, Any]:
    return {
        "model": model.spec.name,
        "text": model.tokenizer.decode(spoken),
        "prompt_ids": prompt,
        "output_ids": spoken,
        "finish_reason": finish_reason(spoken, model.tokenizer.stop),
    }


def prompt_tokens(options: Options, model: Model) -> list[int]:
    """The prompt's ids, from text or as given; raises BadValue for ids the model lacks."""
    if options.prompt is not None:
        return model.tokenizer.encode_prompt(options.prompt, options.raw)
    text = options.prompt_ids or ""
    try:
        ids = [int(part) for part in text.split(",")]
        text.encode("ascii")  # digits of other scripts are numbers, too, to Python
    except ValueError:
        raise BadValue("--prompt-ids", text, "must be numbers such as 1,2,3") from None
    for token in ids:
        if not 0 <= token < model.spec.vocab:
            raise BadValue("--prompt-ids", token, f"must be 0 to {model.spec.vocab - 1}")
    return ids


def new_tokens(options: Options, prompt: int, context: int) -> int:
    """How many tokens to generate; raises PromptTooLong. The last one needs no place."""
    room = context + 1 - prompt
    count = options.max_new_tokens or max(1, min(NEW_TOKENS, room))
    if count > room:
        raise PromptTooLong(prompt, count, context)
    return count


def make_machine(options: Options) -> Machine:
    """The machine that was asked for, not yet loaded; it keeps checkpoints if it can be lost."""
    if options.machine == "local" and not options.checkpoint:
        return LocalMachine()
    machine = _ray_machine(options) if options.machine == "ray" else LocalMachine()
    shelf = Shelf(options.checkpoint, options.resume)
    return Checkpointed(machine, shelf, options.checkpoint_every)


def _ray_machine(options: Options) -> Survivor:
    try:
        from cluster.actors.ray_machine import RayMachine
    except ModuleNotFoundError as error:
        raise BadValue("--machine", "ray", f"{error.name} is not installed") from None
    return RayMachine(options.chips_per_actor or 1, options.address)


def load(machine: Machine, lowered: Lowered, bars: Bars, watch: Stopwatch) -> None:
    """Load a machine; time and show each part that it reports."""
    part = ""

    def progress(what: str, done: int, total: int) -> None:
        nonlocal part
        if part and what != part:
            watch.lap(part)
        part = what
        bars.step(what, done, total)

    machine.load(lowered, progress)
    watch.lap(part or LINKING)
    bars.step("prefill", 0, 0)


def say_resumed(options: Options, rig: Rig) -> None:
    """Say on stderr from where --resume goes on: a short run has kept nothing yet."""
    if options.resume:
        done = rig.ledger.costs()["resumed_launches"]
        nothing = "holds no launch yet; this run starts with the first"
        where = f"this run goes on after launch {done}" if done else nothing
        show_note(f"--resume: {options.checkpoint}: {where}")


def _listen(tokens: Iterator[int], model: Model, count: int, bars: Bars, quiet: bool) -> list[int]:
    """Collect the tokens; show their text as it comes unless told to be quiet."""
    spoken: list[int] = []
    stream = model.tokenizer.stream()
    for token in tokens:
        spoken.append(token)
        if quiet:
            bars.step("decode", len(spoken), count)
        else:
            bars.stop()
            show_text(stream.push(token))
    if not quiet:
        show_text(stream.finish())
    return spoken
