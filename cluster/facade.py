"""What `import cluster` offers: a loaded model that answers, and the timing of a plan.

`lpu run` and `lpu plan` do the same from the command line, with more options.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from cluster.compiler.choose import PlanRequest, choose, place_choice
from cluster.compiler.launch import context_bucket, decode_kind
from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.compiler.lower import Lowered, lower
from cluster.errors import BadValue
from cluster.generation.logprobs import Logprobs
from cluster.generation.sampling import Sampling
from cluster.machines.machine import LocalMachine, Machine
from cluster.model.fetch import cache_folder
from cluster.model.load import Loaded, Tokenizer, load_model
from cluster.planning.cost_store import CostStore
from cluster.planning.planner import reported
from cluster.program_store import own_store
from cluster.runs.report import plan_shape
from cluster.runs.running import check_ids, new_tokens
from cluster.serving.engine import PipelineRunner
from cluster.serving.requests import Request
from cluster.sweeps.answers import answer
from cluster.sweeps.pages import write_results
from cluster.sweeps.question import asked, read
from cluster.sweeps.sweeping import output_folder
from cluster.sweeps.sweeping import sweep as run_sweep
from cluster.tracing.events import KERNELS
from cluster.tracing.files import check_format, write_timeline
from cluster.tracing.launch import run_timeline
from topology.collectives.sums import FP32


@dataclass(frozen=True)
class Answer:
    """What a model said: `str()` of it is the text.

    `cycles` are the executed ones of every launch; the last of the prompt's gives the first token.
    `digest` is equal on every machine, for the same launches on chips in the same state. There are
    `logprobs` of each token if they were asked for.
    """

    text: str
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    cycles: tuple[int, ...]
    digest: str
    logprobs: tuple[Logprobs, ...] = ()

    def __str__(self) -> str:
        return self.text


@dataclass
class Engine:
    """A model whose programs and weights are on the chips of a machine."""

    lowered: Lowered
    machine: Machine
    tokenizer: Tokenizer
    topology: str
    _launch: str = field(default="", repr=False)  # the last that was run

    @property
    def plan(self) -> dict[str, Any]:
        """Chips, stages and SRAM, as `lpu run --json` has them under `plan`."""
        return plan_shape(self.lowered, self.topology)

    def generate(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int | None = None,
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        logprobs: int = 0,
    ) -> Answer:
        """What follows a text, or token ids, as it stands; greedy unless `temperature` is given.

        `max_new_tokens` is 64, or what the context has room for. With `logprobs` the answer says
        how likely its tokens were, and so many of the likeliest. Raises PromptTooLong, BadValue.
        """
        if isinstance(prompt, str):
            ids = self.tokenizer.encode_prompt(prompt, raw=True)
        else:
            ids = check_ids(list(prompt), self.lowered.plan.model.vocab)
        return self._answer(ids, max_new_tokens, Sampling(temperature, top_p, seed), logprobs)

    def chat(self, text: str, max_new_tokens: int | None = None) -> Answer:
        """The answer to one message of a user, by the model's chat template; greedy."""
        ids = self.tokenizer.encode_prompt(text)
        return self._answer(ids, max_new_tokens, Sampling())

    def _answer(self, ids: list[int], most: int | None, sampling: Sampling, top: int = 0) -> Answer:
        count = new_tokens(most, len(ids), self.lowered.plan)
        runner = PipelineRunner(self.lowered, self.machine, top)
        request = Request(tuple(ids), count)
        for _ in runner.answer([request], sampling.pick, self.tokenizer.stop):
            self._launch = runner.launches[-1]
        said = tuple(request.tokens)
        text, digest = self.tokenizer.decode(said), runner.digest.hexdigest()
        found = tuple(runner.logprobs_of(request))
        return Answer(text, tuple(ids), said, tuple(runner.cycles), digest, found)

    def trace(
        self, path: str | Path, level: str = KERNELS, chips: Sequence[int] | None = None
    ) -> None:
        """Write the last launch, or a decode before there is one, for Perfetto.

        `path` ends in .json, .json.gz or .pftrace; `level` is segments, kernels or instructions;
        `chips` are all unless they are given. Raises BadValue.
        """
        check_format(Path(path), level)
        name = self._launch or str(decode_kind(context_bucket(1)))
        joined = dict.fromkeys(self.lowered.launches[name].programs, name)
        write_timeline(Path(path), run_timeline(self.lowered, joined, name, level, chips))

    def close(self) -> None:
        """Release the machine."""
        self.machine.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()


def load(
    model: str,
    *,
    tp: int | None = None,
    pp: int | None = None,
    ep: int | None = None,
    sums_between_nodes: str = FP32,
    topology: str | None = None,
    weights: str | None = None,
    chips: int | None = None,
    spec: str = "groqchip1",
    context: int = CONTEXT_BLOCK,
    machine: Machine | None = None,
) -> Engine:
    """Plan, place, compile and load a model: a known name, a GGUF file or a Hugging Face folder.

    What is not given is chosen: the fewest chips, a topology that holds them, fp16 weights, all
    chips in this process. Raises what `lpu run` reports: BadValue, UnknownName, DoesNotFit, ...
    """
    request = PlanRequest(
        chips, tp, pp, topology, spec=spec, weights=weights, context=context, ep=ep,
        sums_between_nodes=sums_between_nodes,
    )  # fmt: skip
    _check(request)
    loaded: Loaded = load_model(model)
    choice = choose(loaded.model, request)
    store = own_store()
    placed = place_choice(choice)
    lowered = lower(*placed, choice.graph, loaded.weights, kept=store.launches)
    mine = machine or LocalMachine(store)
    mine.load(lowered, lambda _what, _done, _total: None)
    return Engine(lowered, mine, loaded.tokenizer, choice.topology)


def plan(
    model: str,
    *,
    chips: int | None = None,
    tp: int | None = None,
    pp: int | None = None,
    ep: int | None = None,
    sums_between_nodes: str = FP32,
    topology: str | None = None,
    weights: str | None = None,
    spec: str = "groqchip1",
    context: int = CONTEXT_BLOCK,
    batch: int = 1,
    prompt_tokens: int | None = None,
    objective: str = "latency",
) -> dict[str, Any]:
    """The best plan and its timing: the object that `lpu plan --json` prints; nothing is run.

    Raises what `lpu plan` reports: BadValue, UnknownName, DoesNotFit, TopologyError.
    """
    request = PlanRequest(
        chips, tp, pp, topology, weights=weights, spec=spec, context=context, batch=batch,
        prompt_tokens=prompt_tokens, objective=objective, ep=ep,
        sums_between_nodes=sums_between_nodes,
    )  # fmt: skip
    _check(request)
    return reported(model, request, CostStore(cache_folder() / "costs"))


@dataclass(frozen=True)
class Swept:
    """What a sweep gave: `str()` of it is the answer; `rows` are as in results.jsonl.

    `computed` and `cached` count points, `failed` those without a plan, whose rows say why.
    """

    answer: str
    rows: tuple[Mapping[str, Any], ...]
    computed: int
    cached: int
    failed: int

    def __str__(self) -> str:
        return self.answer


def sweep(
    question: str | Path | Mapping[str, Any],
    *,
    output: str | Path | None = None,
    workers: int | None = None,
    address: str | None = None,
) -> Swept:
    """Compute the points of a question, and answer it: a TOML file, or the tables of one.

    With `output` there are the files of `lpu sweep` in that folder. Points are computed by a
    process for each core, or so many `workers`, or as tasks of the Ray at `address`. Raises what
    `lpu sweep` reports: BadSweep, BadValue, OSError.
    """
    if isinstance(question, Mapping):
        found = asked(question, Path("sweep"))
    else:
        found = read(Path(question))
    folder = Path(output) if output is not None else None
    with output_folder("output", folder) if folder else nullcontext():
        result = run_sweep(found, cache_folder(), workers=workers, address=address)
        said = answer(result)
        if folder:
            write_results(result, said, folder, f"cluster.sweep({str(found.file)!r})")
    return Swept(said.text, result.rows, result.computed, result.cached, result.failed)


def _check(request: PlanRequest) -> None:
    """Raise BadValue for numbers that the command line would not read."""
    for name in ("chips", "tp", "pp", "ep", "context", "batch", "prompt_tokens"):
        value = getattr(request, name)
        if value is not None and value < 1:
            raise BadValue(name, value, "must be 1 or more")
