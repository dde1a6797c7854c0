"""`lpu run`: choose a plan, load a machine, answer one prompt or many, report."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from chip.spec import ChipSpec
from cluster.compiler.choose import Choice, PlanRequest, choose, place_choice
from cluster.compiler.lower import Lowered, lower
from cluster.compiler.stages import Plan
from cluster.compiler.sums import sums_notes
from cluster.errors import BadValue, PromptTooLong
from cluster.files import check_writable, read_lines
from cluster.generation.sampling import Sampling
from cluster.machines.checkpoint import Checkpointed, Survivor
from cluster.machines.checkpoint_store import CheckpointStore
from cluster.machines.clocked import Clocked
from cluster.machines.launch_log import LaunchLog
from cluster.machines.machine import LINKING, LocalMachine, Machine
from cluster.machines.record import Recorder
from cluster.model.fetch import cache_folder
from cluster.model.load import Loaded, load_model
from cluster.planning.cost_store import CostStore
from cluster.planning.rows import choose_rows
from cluster.process import peak_rss_bytes
from cluster.program_store import own_store
from cluster.report.files import write_report
from cluster.report.page import Page
from cluster.runs.accuracy import Accuracy
from cluster.runs.answers import Answers
from cluster.runs.clock_report import clock_report
from cluster.runs.display import Bars, Stopwatch, show_note, show_text
from cluster.runs.drafting import Drafting, read_draft
from cluster.runs.many import put_answers, report_of_many
from cluster.runs.report import Host, report_of_one
from cluster.serving.engine import PipelineRunner
from cluster.serving.requests import Request
from cluster.serving.speculation import SpeculativeScheduler
from cluster.tracing.files import write_timeline
from cluster.tracing.launch import run_timeline
from cluster.tracing.traffic import launch_link_bytes
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
    rows: int | None
    max_new_tokens: int | None
    temperature: float
    top_p: float
    seed: int
    logprobs: int | None
    draft: str | None
    draft_tokens: int
    chips: int | None
    tp: int | None
    pp: int | None
    ep: int | None
    sums_between_nodes: str
    topology: str | None
    profile: str | None
    links: tuple[str, ...]
    faults: str | None
    spec: str
    weights: str
    accuracy: bool
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
    trace_level: str
    trace_chips: tuple[int, ...] | None
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
        if self.accuracy and (self.prompts or self.draft):
            more = "--prompts" if self.prompts else "--draft"
            raise BadValue("--accuracy", "", f"is for one prompt, token by token: no {more}")
        if self.draft is not None:
            read_draft(self.draft)
            if self.concurrency > 1:
                raise BadValue("--draft", self.draft, "is for one sequence: no --concurrency")
            if self.record:
                raise BadValue("--record", self.record, "holds whole launches: no --draft")
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
    def request(self) -> PlanRequest:
        """The part that chooses a plan."""
        return PlanRequest(
            self.chips, self.tp, self.pp, self.topology, self.profile, self.links, self.faults,
            self.spec, self.weights, self.context,
            # with guesses under way the stages work side by side, which is what two slots make
            max(self.concurrency, 2 if self.draft else 1), ep=self.ep,
            rows=1 if self.draft else self.rows, sums_between_nodes=self.sums_between_nodes,
        )  # fmt: skip


def generate(options: Options, start: float, bars: Bars) -> dict[str, Any]:
    """Plan, load, answer; returns the report. `start` is when the command began."""
    watch = Stopwatch(start)
    watch.lap("import")
    lines = read_lines(options.prompts) if options.prompts else []
    model = load_model(options.model, lambda done, total: bars.step("fetch", done, total))
    for note in model.notes:
        click.echo(f"note: {note}", err=True)
    watch.lap("model")
    if lines:
        choice = choose_rows(model.model, options.request, CostStore(cache_folder() / "costs"))
        requests = requests_of(options, lines, model, choice.plan)
    else:
        prompt = prompt_tokens(options, model)
        choice = choose(model.model, options.request)
        count = new_tokens(options.max_new_tokens, len(prompt), choice.plan)
        requests = [Request(tuple(prompt), count)]
    for note in sums_notes(choice.plan.model, choice.plan.tp):
        click.echo(f"note: {note}", err=True)
    lowered = lower_choice(choice, model, options, bars)
    watch.lap("lower")
    rig, drafting = Rig.of(options), load_draft(options, model, choice.plan, bars)
    accuracy = None
    if options.accuracy:
        accuracy = Accuracy.of(model.weights, choice.plan.tokens_max, requests[0].prompt)
    try:
        load(rig.log, lowered, bars, watch)
        say_resumed(options, rig)
        draft = drafting.draft if drafting else None
        runner = PipelineRunner(lowered, rig.log, options.logprobs or 0, draft=draft)
        choose_token = options.sampling.pick
        pick = accuracy.beside(choose_token) if accuracy else choose_token
        tokens = runner.answer(requests, pick, model.tokenizer.stop)
        if lines:
            with Answers(options.output, options.as_json) as answers:
                put_answers(tokens, lines, model, runner, (bars, answers))
        else:
            _listen(tokens, model, requests[0].max_new_tokens, bars, quiet=options.as_json)
        host = rig.host(start, watch)
        rig.commit()
    finally:
        rig.log.close()
        if drafting:
            drafting.close()
    last = runner.launches[-1]
    joined = runner.programs[last]
    if options.trace:
        shown = (joined, last, options.trace_level, options.trace_chips)
        write_timeline(options.trace, run_timeline(lowered, *shown))
    build = report_of_many if lines or drafting else report_of_one
    report = build(model, runner, choice.topology, rig.log.entries, host)
    if drafting:
        assert isinstance(runner.scheduler, SpeculativeScheduler)
        report["speculation"] = drafting.report(lowered, runner.scheduler)
        if not lines:
            report |= report["sequences"][0]
    if accuracy:
        report["accuracy"] = accuracy.report()
    report["plan"]["faults"] = options.faults
    report["clocks"] = clock_report(lowered, rig.clocked)
    links = launch_link_bytes(lowered, joined)
    report["emulated"]["link_bytes"] = {f"{a}->{b}": n for (a, b), n in sorted(links.items())}
    if options.report:
        bars.step("report", 0, 0)
        parts = lowered, choice.graph, (last, joined), links, report
        write_report(options.report, report, lambda: _page(*parts))
    return report


def _page(*parts: Any) -> Page:
    from cluster.report.run_page import run_page  # matplotlib is loaded for pages alone

    return run_page(*parts)


def load_draft(options: Options, model: Loaded, plan: Plan, bars: Bars) -> Drafting | None:
    """What guesses tokens, if anything does."""
    if options.draft is None:
        return None
    choice = read_draft(options.draft)
    size = options.draft_tokens, plan.context
    return Drafting.load(choice, *size, options.sampling, model, bars)


def lower_choice(choice: Choice, model: Loaded, options: Options, bars: Bars) -> Lowered:
    """Place a plan and make its programs."""
    bars.step("lower", 0, 0)
    plan, placement = place_choice(choice)
    clock = options.clock(plan.spec)
    return lower(plan, placement, choice.graph, model.weights, clock, kept=own_store().launches)


@dataclass
class Rig:
    """The machine that was asked for, on real oscillators, its launches written down."""

    log: LaunchLog
    clocked: Clocked
    recorder: Recorder | None

    @classmethod
    def of(cls, options: Options) -> "Rig":
        """Return it, not yet loaded."""
        bare = make_machine(options)
        recorder = Recorder(bare, options.record) if options.record else None
        really = options.jitter_seed, options.drift_ppm, options.jitter_cycles
        clocked = Clocked(recorder or bare, *really)
        return cls(LaunchLog(clocked), clocked, recorder)

    def host(self, start: float, watch: Stopwatch) -> Host:
        """What it has cost here since `start`."""
        machine = self.log
        wall_s, memory = time.perf_counter() - start, peak_rss_bytes() + machine.worker_bytes()
        return Host(machine.name, machine.actors, watch.parts, wall_s, memory, machine.costs())

    def commit(self) -> None:
        """Give the recording its name, if there is one."""
        if self.recorder:
            self.recorder.commit()


def prompt_tokens(options: Options, model: Loaded) -> list[int]:
    """The prompt's ids, from text or as given; raises BadValue for ids the model lacks."""
    if options.prompt is not None:
        return model.tokenizer.encode_prompt(options.prompt, options.raw)
    text = options.prompt_ids or ""
    try:
        ids = [int(part) for part in text.split(",")]
        text.encode("ascii")  # digits of other scripts are numbers, too, to Python
    except ValueError:
        raise BadValue("--prompt-ids", text, "must be numbers such as 1,2,3") from None
    return check_ids(ids, model.model.vocab)


def check_ids(ids: list[int], vocab: int) -> list[int]:
    """Return the ids; raises BadValue for one that the model lacks, or for none at all."""
    if not ids:
        raise BadValue("--prompt-ids", "", "the prompt is empty")
    for token in ids:
        if not 0 <= token < vocab:
            raise BadValue("--prompt-ids", token, f"must be 0 to {vocab - 1}")
    return ids


def new_tokens(most: int | None, prompt: int, plan: Plan) -> int:
    """How many tokens to generate, at `most`; raises PromptTooLong. The last needs no place."""
    room = plan.tokens_max + 1 - prompt
    count = most or max(1, min(NEW_TOKENS, room))
    if count > room:
        advice = [f"{plan.model.name} takes no more"] * (plan.tokens_max == plan.model.context_max)
        raise PromptTooLong(prompt, count, plan.tokens_max, *advice)
    return count


def requests_of(
    options: Options, lines: Sequence[tuple[int, str]], model: Loaded, plan: Plan
) -> list[Request]:
    """A request for every line; raises BadValue for one that is too long."""
    found = []
    for number, text in lines:
        said = text if options.raw else text.strip()
        prompt = model.tokenizer.encode_prompt(said, options.raw)
        try:
            count = new_tokens(options.max_new_tokens, len(prompt), plan)
        except PromptTooLong as error:
            problem = f"line {number}: {error.message()}"
            raise BadValue("--prompts", options.prompts, problem) from None
        found.append(Request(tuple(prompt), count))
    return found


def make_machine(options: Options) -> Machine:
    """The machine that was asked for, not yet loaded; it keeps checkpoints if it can be lost."""
    if options.machine == "local" and not options.checkpoint:
        return LocalMachine(own_store())
    machine = _ray_machine(options) if options.machine == "ray" else LocalMachine(own_store())
    store = CheckpointStore(options.checkpoint, options.resume)
    return Checkpointed(machine, store, options.checkpoint_every)


def _ray_machine(options: Options) -> Survivor:
    try:
        from cluster.machines.ray.ray_machine import RayMachine
    except ModuleNotFoundError as error:
        raise BadValue("--machine", "ray", f"{error.name} is not installed") from None
    return RayMachine(options.chips_per_actor or 1, options.address, own_store())


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
        done = rig.log.costs()["resumed_launches"]
        nothing = "holds no launch yet; this run starts with the first"
        where = f"this run goes on after launch {done}" if done else nothing
        show_note(f"--resume: {options.checkpoint}: {where}")


def _listen(
    tokens: Iterator[tuple[Request, int]], model: Loaded, count: int, bars: Bars, quiet: bool
) -> None:
    """Run to the end; show the text of the answer as it comes unless told to be quiet."""
    stream = model.tokenizer.stream()
    for done, (_, token) in enumerate(tokens, 1):
        if quiet:
            bars.step("decode", done, count)
        else:
            bars.stop()
            show_text(stream.push(token))
    if not quiet:
        show_text(stream.finish())
