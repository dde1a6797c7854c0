"""`lpu serve`: choose a plan, load a machine, listen, and answer until told to end."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import click

from cluster.compiler.choose import PlanRequest, choose
from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.compiler.lower import lower
from cluster.compiler.place import place
from cluster.compiler.stage_shape import keeps_all
from cluster.compiler.stages import Plan
from cluster.compiler.sums import sums_notes
from cluster.errors import BadValue, DoesNotFit
from cluster.machines.checkpoint import Checkpointed
from cluster.machines.checkpoint_store import CheckpointStore
from cluster.machines.clocked import Clocked
from cluster.machines.machine import LocalMachine, Machine
from cluster.model.fetch import cache_folder
from cluster.model.graph.graph import Model
from cluster.model.known import known_names
from cluster.model.load import Loaded, find_decoder, find_model, load_model
from cluster.planning.cost_store import CostStore
from cluster.planning.planner import Planned, make
from cluster.planning.timing import PlanTiming
from cluster.program_store import own_store
from cluster.runs.display import Bars, Stopwatch, counted
from cluster.runs.running import CHECKPOINT_LAUNCHES, load
from cluster.serving.build import Policy
from cluster.serving.clockwork import Clockwork
from cluster.serving.engine import PipelineRunner
from cluster.serving.loop import EngineThread
from cluster.serving.openai.answers import Served
from cluster.serving.openai.app import Api, make_app
from cluster.serving.openai.embeddings import Embedder, names_of
from cluster.serving.openai.server import Server, bind, url_of
from cluster.serving.timed import ECHO, RANDOM, Chance, Echo, FromReference, TimedRunner, Words

BLOCKS = 2  # of the context, unless it is given
BLOCK_TOKENS = 16  # by which prompts that begin alike are known
NONE = "none"
SLOTS = 4  # unless they are given; with --timing-of fewer where these have no room


@dataclass(frozen=True)
class Options:
    """The command line of a server."""

    model: str
    host: str
    port: int
    api_key: str | None
    queue: int
    body_bytes: int
    drain_s: int
    embeddings: str
    concurrency: int | None
    context: int | None
    timing_of: str | None
    text: str | None
    speed: float | None
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
    weights: str | None
    machine: str
    chips_per_actor: int | str | None
    address: str | None
    prefix_cache: bool
    kv_pages: int | None

    def check(self) -> "Options":
        """Return self; raise BadValue for what can be seen to be wrong before any work."""
        for option in ("chips_per_actor", "address"):
            value = getattr(self, option)
            if value is not None and self.machine != "ray":
                raise BadValue(f"--{option.replace('_', '-')}", value, "needs --machine ray")
        if self.text is not None and self.timing_of is None:
            raise BadValue("--text", self.text, "needs --timing-of MODEL")
        if self.timing_of is not None and self.machine == "ray":
            raise BadValue("--machine", "ray", "runs chips; with --timing-of there are none")
        if self.embeddings != NONE and find_model(self.embeddings).has_logits:
            raise BadValue("--embeddings", self.embeddings, "is no encoder; minilm is one")
        return self

    @property
    def words(self) -> str:
        """The model that words come from, or at least tokens."""
        return self.model if self.text in (None, ECHO, RANDOM) else self.text

    def request(self, model: Model, slots: int) -> PlanRequest:
        """The part that chooses a plan of so many slots for a model."""
        fits = model.context_max // CONTEXT_BLOCK * CONTEXT_BLOCK
        context = self.context or max(CONTEXT_BLOCK, min(BLOCKS * CONTEXT_BLOCK, fits))
        return PlanRequest(
            self.chips, self.tp, self.pp, self.topology, self.profile, self.links, self.faults,
            self.spec, self.weights, context, slots, ep=self.ep,
            sums_between_nodes=self.sums_between_nodes,
        )  # fmt: skip


@dataclass
class Service:
    """What is served, and what it runs on."""

    options: Options
    served: Served | None = None
    engine: EngineThread | None = None
    machine: Machine | None = None
    embedder: Embedder | None = None
    about: str = ""

    def load(self, bars: Bars, watch: Stopwatch) -> None:
        """Plan and load; raises what `lpu run` and `lpu embed` report."""
        options = self.options
        if not find_model(options.timing_of or options.model).has_logits:
            self.embedder = Embedder(options.model, options.machine)
            self.embedder.load(bars)
            self.about = "embeddings"
            return
        if options.embeddings != NONE:
            self.embedder = Embedder(options.embeddings, options.machine)
        loaded = load_model(options.words, lambda done, total: bars.step("fetch", done, total))
        for note in loaded.notes:
            click.echo(f"note: {note}", err=True)
        watch.lap("model")
        if options.timing_of:
            self._time(loaded, bars)
        else:
            self._execute(loaded, bars, watch)

    def _execute(self, loaded: Loaded, bars: Bars, watch: Stopwatch) -> None:
        """Answers come from chips."""
        options = self.options
        request = options.request(loaded.model, options.concurrency or SLOTS)
        choice = choose(loaded.model, replace(request, weights=request.weight_type))
        for note in sums_notes(choice.plan.model, choice.plan.tp):
            click.echo(f"note: {note}", err=True)
        bars.step("lower", 0, 0)
        placement = place(choice.plan, choice.graph, choice.topology)
        size = choice.plan, placement, choice.graph, loaded.weights
        lowered = lower(*size, kept=own_store().launches)
        watch.lap("lower")
        self.machine = Clocked(_machine(options))
        load(self.machine, lowered, bars, watch)
        timed = partial(PlanTiming, choice.plan, placement, choice.graph)
        policy = self._policy(choice.plan, lambda: Clockwork(timed(), choice.plan.context))
        runner = PipelineRunner(lowered, self.machine, history=False, policy=policy)
        self.engine = EngineThread(runner, options.queue, options.speed)
        plan = choice.plan
        self._serve(options.model, loaded.model.name, loaded, plan.tokens_max)
        self.about = f"{counted(plan.chips, 'chip')} on {choice.topology}"

    def _time(self, loaded: Loaded, bars: Bars) -> None:
        """Answers come at the times of a model that is only planned."""
        options, name = self.options, self.options.timing_of
        assert name is not None
        bars.step("plan", 0, 0)
        tried = [options.concurrency] if options.concurrency else [SLOTS, SLOTS // 2, 1]
        planned = _planned(name, [options.request(find_decoder(name), slots) for slots in tried])
        for note in planned.notes:
            click.echo(f"note: {note}", err=True)
        plan, words = planned.timed.plan, _words(options.text, loaded, planned.timed.plan)

        def progress(done: int, total: int) -> None:
            bars.step("plan", done, total)

        clockwork = Clockwork(planned.timed, plan.context, progress)
        runner = TimedRunner(clockwork, words, self._policy(plan, lambda: clockwork))
        self.engine = EngineThread(runner, options.queue, options.speed or 1.0)
        self._serve(name, plan.model.name, loaded, plan.tokens_max)
        said = options.text if options.text in (ECHO, RANDOM) else loaded.model.name
        where = f"{counted(plan.chips, 'chip')} on {planned.topology}"
        self.about = f"times of {where}, words: {said}"

    def _policy(self, plan: Plan, clockwork: Callable[[], Clockwork]) -> Policy:
        """How requests share the caches; what leaving pages costs is asked only if they are few."""
        options, pages = self.options, self.options.kv_pages
        reuses = options.prefix_cache and keeps_all(plan.model)
        policy = Policy(block_tokens=BLOCK_TOKENS if reuses else 0)
        if pages is None:
            return policy
        longest = -(-plan.context // policy.page_tokens)
        if pages < longest:
            raise BadValue("--kv-pages", pages, f"a request of the whole context needs {longest}")
        known = clockwork()
        return replace(policy, pages=pages, move_s=known.move_s, refill_s=known.refill_s)

    def _serve(self, asked: str, name: str, loaded: Loaded, context: int) -> None:
        shown = asked.lower() if asked.lower() in known_names() else name
        names = names_of(asked) | {shown.lower(), name.lower()}
        self.served = Served(
            shown, names, loaded.tokenizer, loaded.model.vocab, context, int(time.time())
        )

    def close(self) -> None:
        """Release everything."""
        for part in (self.machine, self.embedder):
            if part is not None:
                part.close()

    def server(self, ready: Callable[[], None]) -> Server:
        """What listens, once it is run with a socket."""
        options, api = self.options, Api(self.served, self.engine, self.embedder)
        app = make_app(api, self.engine, options.api_key, options.body_bytes)
        return Server(app, options.drain_s, ready)


def serve(options: Options, start: float, bars: Bars) -> None:
    """Serve until SIGTERM; raises KeyboardInterrupt after SIGINT, and what loading reports."""
    watch = Stopwatch(start)
    listener = bind(options.host, options.port)
    service = Service(options)

    def ready() -> None:
        bars.stop()
        name = service.served.name if service.served else options.model
        slots = f", {counted(service.engine.slots, 'slot')}" if service.engine else ""
        about = f"{service.about}{slots}; ready in {time.perf_counter() - start:.1f} s"
        click.echo(f"serving {name} on {url_of(listener)}/v1 ({about})")

    try:
        service.load(bars, watch)
        server = service.server(ready)
        server.run([listener])
    finally:
        listener.close()
        service.close()
    if server.interrupted:
        raise KeyboardInterrupt


def _planned(name: str, requests: Sequence[PlanRequest]) -> Planned:
    """The best plan of the first request that has one whose stages can work side by side.

    Raises what `lpu plan` reports of the last.
    """
    store = CostStore(cache_folder() / "costs")
    for request in requests:
        try:
            planned = make(name, request, store)
            if request.batch > 1:
                planned.timed.steps  # noqa: B018  raises where stages need each other's chips
        except (BadValue, DoesNotFit):
            if request is requests[-1]:
                raise
        else:
            break
    return planned


def _words(source: str | None, loaded: Loaded, plan: Plan) -> Words:
    if source == ECHO:
        return Echo(loaded)
    return Chance(loaded) if source == RANDOM else FromReference(loaded, plan.tokens_max)


def _machine(options: Options) -> Machine:
    """The machine that was asked for; one that can lose workers keeps checkpoints."""
    if options.machine == "local":
        return LocalMachine(own_store())
    try:
        from cluster.machines.ray.ray_machine import RayMachine
    except ModuleNotFoundError as error:
        raise BadValue("--machine", "ray", f"{error.name} is not installed") from None
    machine = RayMachine(options.chips_per_actor or 1, options.address, own_store())
    return Checkpointed(machine, CheckpointStore(None, False), CHECKPOINT_LAUNCHES)
