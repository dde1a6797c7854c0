"""What `--draft` names: n-grams of what was said, or a model on chips of its own."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cluster.compiler.choose import PlanRequest, choose
from cluster.compiler.launch import launch_kinds
from cluster.compiler.limits import DECODER_TYPES
from cluster.compiler.lower import Lowered, lower
from cluster.compiler.place import place
from cluster.errors import BadValue
from cluster.generation.sampling import Sampling
from cluster.machines.machine import LocalMachine, Machine
from cluster.model.load import Loaded, find_decoder, load_model
from cluster.program_store import own_store
from cluster.runs.display import Bars
from cluster.serving.speculation import Draft, DraftModel, NGrams, SpeculativeScheduler, measured

OPTION, NGRAM = "--draft", "ngram"


@dataclass(frozen=True)
class DraftChoice:
    """What guesses: n-grams of at most `longest` tokens, or else a model with such weights."""

    text: str
    longest: int | None = None
    model: str = ""
    weights: str = "fp16"


def read_draft(text: str) -> DraftChoice:
    """Read ngram:N, a model, or one with the type of its weights, as smollm2-int8.

    Raises BadValue, or UnknownName for a model that there is not.
    """
    kind, colon, size = text.partition(":")
    if kind == NGRAM:
        if not (colon and size.isascii() and size.isdigit() and 1 <= int(size[:9]) <= 64):
            raise BadValue(OPTION, text, "write it as ngram:N, N 1 to 64")
        return DraftChoice(text, int(size))
    name, _, weights = text.rpartition("-")
    if weights not in DECODER_TYPES or not name:
        name, weights = text, "fp16"
    find_decoder(name)
    return DraftChoice(text, None, name, weights)


@dataclass
class Drafting:
    """A draft that is ready, with the machine that it runs on if it is a model."""

    choice: DraftChoice
    draft: Draft
    machine: Machine | None = None
    chips: int = 0

    @classmethod
    def load(
        cls, choice: DraftChoice, count: int, context: int, sampling: Sampling,
        target: Loaded, bars: Bars,
    ) -> "Drafting":  # fmt: skip
        """Load it; raises BadValue for a model with other tokens, and what loading reports."""
        if choice.longest is not None:
            return cls(choice, NGrams(choice.longest, count))
        loaded = load_model(choice.model)
        if loaded.model.vocab != target.model.vocab:
            rule = f"has {loaded.model.vocab} tokens, {target.model.name} {target.model.vocab}"
            raise BadValue(OPTION, choice.text, rule)
        request = PlanRequest(weights=choice.weights, context=context)
        found = choose(loaded.model, request)
        placement = place(found.plan, found.graph, found.topology)
        kinds = launch_kinds(found.plan)  # each through all stages: what guesses is alone
        size = found.plan, placement, found.graph, loaded.weights
        lowered: Lowered = lower(*size, kinds=kinds, kept=own_store().launches)
        machine = LocalMachine(own_store())
        machine.load(lowered, bars.step)
        draft = DraftModel(lowered, machine, sampling.pick, count)
        return cls(choice, draft, machine, found.plan.chips)

    def report(self, lowered: Lowered, scheduler: SpeculativeScheduler) -> dict[str, Any]:
        """What the guesses were worth, for the report of a run."""
        found = measured(lowered, scheduler)
        rates = found.tokens_per_s, found.plain_tokens_per_s
        return {
            "draft": self.choice.text,
            "draft_chips": self.chips,
            **asdict(found),
            "acceptance": found.accepted / found.guessed if found.guessed else None,
            "speedup": rates[0] / rates[1] if rates[0] and rates[1] else None,
        }

    def close(self) -> None:
        """Release its machine."""
        if self.machine is not None:
            self.machine.close()


def speculation_line(found: Mapping[str, Any]) -> str:
    """One line of it for a person."""
    if found["speedup"] is None:
        return f"{found['draft']} guessed {found['guessed']} tokens: too few to say what it gains"
    acceptance = "no guess" if found["acceptance"] is None else f"{found['acceptance']:.0%}"
    return (
        f"{found['draft']}: {acceptance} of {found['guessed']} guesses right, "
        f"{found['tokens_per_s']:,.0f} tokens/s against {found['plain_tokens_per_s']:,.0f} without "
        f"(x{found['speedup']:.2f})"
    )
