"""What a point of a sweep is: the settings that a file may fix or vary, each with its type.

One class says it; the grid of a file has the same keys with lists.
"""

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, create_model

from cluster.compiler.limits import DECODER_TYPES
from cluster.planning.search import OBJECTIVES
from topology.collectives.sums import SUM_FORMATS
from topology.links import PROFILES
from topology.registry import MOST_CHIPS

TEMPLATE = re.compile(r"\{(\w+)\}")  # in a text: the value of another setting
FACTOR = re.compile(r"x(\d+(?:\.\d+)?)")  # a number as a factor of what it would be otherwise
Do = Literal["plan", "run", "replay"]
PLAN, RUN, REPLAY = "plan", "run", "replay"


def whole(low: int, high: int) -> Any:
    """An integer in a range, or a text such as "{chips}" that becomes one."""

    def check(value: object) -> object:
        if isinstance(value, str) and TEMPLATE.fullmatch(value):
            return value
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"must be an integer from {low} to {high:,}, not {value!r}")
        return value

    return Annotated[int | str, PlainValidator(check)]


def quantity(value: object) -> object:
    """A number, a fraction or a factor such as "x0.5"; a rule of its field follows later."""
    number = isinstance(value, int | float | str) and not isinstance(value, bool)
    if not number:
        raise ValueError(f'must be a number, or a factor such as "x0.5", not {value!r}')
    return value


def rate(value: object) -> object:
    """Requests per second."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 1e-9 <= value <= 1e9):  # type: ignore[operator]
        raise ValueError(f"must be a number of requests a second above 0, not {value!r}")
    return value


Rate = Annotated[int | float, PlainValidator(rate)]
Quantity = Annotated[int | float | str, PlainValidator(quantity)]
if TYPE_CHECKING:  # mypy takes no type that is made of a table
    Count = int | str
    Chips = int | str
    Users = int | str
    Rows = int | str
    Seed = int | str
    Profile = str
    Weights = str
    Objective = str
    Sums = str
else:
    Count, Chips, Users = whole(1, 1 << 24), whole(1, MOST_CHIPS), whole(1, 4096)
    Rows, Seed = whole(1, 32), whole(0, 2**63 - 1)
    Profile, Weights, Objective, Sums = (
        Literal[tuple(names)] for names in (PROFILES, DECODER_TYPES, OBJECTIVES, SUM_FORMATS)
    )


class Table(BaseModel):
    """A table of the file: no key that is not listed, no type that has to be guessed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Settings(Table):
    """Settings of a point. `None` is "choose", as in `lpu plan` and `lpu run`.

    Texts may hold other settings in braces: `topology = "ring:{chips}"`.
    """

    case: str | None = Field(None, description="a name of yours for the points of a part")
    model: str | None = Field(None, description="a name, a config.json, a folder or a GGUF file")
    chips: Chips | None = Field(None, description="chips there are")
    tp: Chips | None = Field(None, description="tensor-parallel chips of a stage")
    ep: Chips | None = Field(None, description="parts of a group over which experts are spread")
    pp: Chips | None = Field(None, description="pipeline stages")
    sums_between_nodes: Sums | None = Field(
        None, description="how nodes of a group send each other partial sums"
    )
    topology: str | None = Field(None, description="a SPEC of `lpu topology list`")
    profile: Profile | None = Field(None, description="link profile")
    link: dict[str, Quantity] | None = Field(
        None, description="fields of a link or its profile, and `bandwidth`, which is a factor"
    )
    faults: str | None = Field(None, description="dead parts, such as chip:5 or links:4:SEED")
    spec: str | None = Field(None, description="chip: a name of `lpu spec`, or a TOML file")
    chip: dict[str, Any] | None = Field(None, description="fields of the chip")
    weights: Weights | None = Field(None, description="type of weights")
    context: Count | None = Field(None, description="tokens of context")
    batch: Users | None = Field(None, description="sequences in flight")
    prompt_tokens: Count | None = Field(None, description="of the time to the first token")
    rows_per_launch: Rows | None = Field(
        None, description="of a plan: sequences that share a decode launch"
    )
    objective: Objective | None = Field(None, description="what makes a plan best")
    prefill_on: str | None = Field(
        None, description="of a plan: GPUs that read prompts for the LPUs, such as H200:8"
    )
    afd: str | None = Field(
        None, description="of a plan: GPUs with attention and caches, beside FFNs on LPUs: B200:8"
    )
    between: str | None = Field(
        None, description="what joins LPUs and GPUs: pcie5x16, or fields: links=4,latency_s=2e-6"
    )
    load: str | None = Field(
        None, description="of a replay: poisson:RATE, gamma:RATE:CV or closed:USERS"
    )
    lengths: str | None = Field(None, description="of a replay: IN:OUT tokens, ~IN:~OUT means")
    trace: str | None = Field(None, description="of a replay: a file of requests that came")
    requests: Count | None = Field(None, description="of a replay: how many")
    rate: Rate | None = Field(
        None, description="of a replay: arrivals moved to so many requests a second"
    )
    seed: Seed | None = Field(None, description="of a replay: of its load and lengths")
    policy: str | None = Field(
        None, description="of a replay: prefill or decode goes first, or budget:TOKENS"
    )
    kv_pages: Count | None = Field(None, description="of a replay: pages of 320 tokens in all")
    slo: str | None = Field(None, description="of a replay: bounds of its goodput, ttft=0.3")
    layers: Count | None = Field(None, description="of a run: layers of `tiny`, not its own two")
    new_tokens: Count | None = Field(None, description="of a run: tokens to generate")
    machine: Literal["local", "ray"] | None = Field(None, description="of a run: what it is on")
    chips_per_actor: Chips | Literal["auto"] | None = Field(None, description="of a run on Ray")


# Settings that mean something for points of some kinds alone.
ONLY = {
    RUN: ("layers", "new_tokens", "machine", "chips_per_actor"),
    REPLAY: ("load", "lengths", "trace", "requests", "rate", "seed", "policy", "kv_pages", "slo"),
    PLAN: ("rows_per_launch", "prefill_on", "afd", "between"),
}
NOT_REPLAYED = ("ep", "prompt_tokens")  # settings of plans and runs alone
NESTED = ("link", "chip")  # tables: each of their keys is a setting of its own, as link.count


def _axis(name: str) -> Any:
    """The type of a setting in [grid]: at least one value of it."""
    info = Settings.model_fields[name]
    one: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    return Annotated[list[one], Field(min_length=1)] | None


_AXES: dict[str, Any] = {name: (_axis(name), None) for name in Settings.model_fields}
_AXES["link"] = (dict[str, Annotated[list[Quantity], Field(min_length=1)]] | None, None)
_AXES["chip"] = (dict[str, Annotated[list[Any], Field(min_length=1)]] | None, None)
Grid: Any = create_model("Grid", __base__=Table, **_AXES)
