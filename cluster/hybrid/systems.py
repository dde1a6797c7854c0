"""Four ways to serve a model, as points: LPUs alone, GPUs alone, prompts on GPUs, and attention
on GPUs with the FFNs on LPUs.

A turn is a prompt and the tokens that answer it. Every point is a steady state: all users are in
such turns, and what is busiest of GPUs, link and LPUs sets how many turns there are in a second.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from chip.energy import energy_table
from cluster.compare.lpu import LpuPoint
from cluster.compare.roofline import ACTIVATION_BYTES, decode_step, kv_bytes_per_token
from cluster.compiler.launch import decode_kind, prefill_kind
from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.energy import Joules
from cluster.hybrid.between import Between
from cluster.hybrid.gpus import Gpus
from cluster.model.graph.graph import Model
from cluster.planning.planner import Planned

LPUS_PER_RACK = 72  # GroqRack: nine nodes of eight
ROWS = (1, 2, 4, 8, 16, 32)  # users of a launch of FFNs
VECTOR_BYTES = 320
LPU_ALONE, GPU_ALONE, PREFILL, AFD = "LPUs alone", "GPUs alone", "prompts on GPUs", "AFD"


@dataclass(frozen=True)
class Turn:
    """Tokens of a prompt, and of its answer; the caches hold both at the end."""

    prompt: int
    new: int

    @property
    def context(self) -> int:
        """Tokens at the end."""
        return self.prompt + self.new


@dataclass(frozen=True)
class Point:
    """A system in a steady state. `tokens_per_s_per_user` is after the first token."""

    kind: str
    system: str
    lpus: int
    gpus: int
    users: int
    tokens_per_s_per_user: float
    tokens_per_s: float
    time_to_first_token_s: float
    watts: float
    racks: float
    bound: str

    @property
    def joules_per_token(self) -> float:
        """Of the devices alone."""
        return self.watts / self.tokens_per_s

    @property
    def tokens_per_s_per_rack(self) -> float:
        """Of all users, for each rack."""
        return self.tokens_per_s / self.racks

    @property
    def tokens_per_s_per_mw(self) -> float:
        """Of all users, for each megawatt of the devices."""
        return self.tokens_per_s / self.watts * 1e6


@dataclass(frozen=True)
class Stage:
    """What of a system a turn keeps busy, and for how long."""

    name: str
    seconds: float


def steady(
    turn: Turn, users: int, each_s: float, first_s: float, *busy: Stage
) -> tuple[float, float, str]:
    """(tokens/s of each user, tokens/s of all, what limits them).

    Alone, a token takes `each_s` and a turn `first_s` before its first; no more turns end in a
    second than the busiest stage has time for.
    """
    busiest = max(busy, key=lambda one: one.seconds)
    turns = min(users / (first_s + turn.new * each_s), 1 / busiest.seconds)
    wanted = users / turns  # seconds of a turn
    limit = busiest.name if turns == 1 / busiest.seconds else "latency"
    slower = max(1.0, wanted / (first_s + turn.new * each_s))
    return 1 / (each_s * slower), turns * turn.new, limit


# --- LPUs alone, and prompts on GPUs --------------------------------------------------------------
def lpu_systems(planned: Planned, points: tuple[LpuPoint, LpuPoint], turn: Turn) -> Iterator[Point]:
    """LPUs alone, for one user and for as many as there is room for."""
    prompt_s = _prompt_s(planned, turn)
    for point in dict.fromkeys(points):
        each_s = 1 / point.tokens_per_s_per_user
        decode_s = turn.new * _interval_s(planned, points, each_s)
        busy = Stage("LPUs", prompt_s * _busiest_share(planned) + decode_s)
        found = steady(turn, point.users, each_s, prompt_s, busy)
        yield _point(LPU_ALONE, point.chips, None, point.users, prompt_s, _lpu_watts(point), found)


def prefill_systems(
    planned: Planned, points: tuple[LpuPoint, LpuPoint], turn: Turn, gpus: Gpus, link: Between,
    weight_bytes: float,
) -> Iterator[Point]:  # fmt: skip
    """Prompts on GPUs: keys and values cross once a turn, layer by layer behind the GPUs."""
    model = planned.timed.plan.model
    prompt_s = gpus.prompt_s(model, turn.prompt, weight_bytes)
    moved_s = turn.prompt * kv_bytes_per_token(model) / link.rate(gpus.count)
    whole, part = max(prompt_s, moved_s), min(prompt_s, moved_s) / len(model.layers)
    for point in dict.fromkeys(points):
        each_s = 1 / point.tokens_per_s_per_user
        first_s = whole + part + link.latency_s + each_s
        lpus = Stage("LPUs", turn.new * _interval_s(planned, points, each_s))
        busy = Stage("GPUs", prompt_s), Stage("link", moved_s), lpus
        found = steady(turn, point.users, each_s, first_s, *busy)
        watts = _lpu_watts(point)
        yield _point(PREFILL, point.chips, gpus, point.users, first_s, watts, found)


def _point(
    kind: str, lpus: int, gpus: Gpus | None, users: int, first_s: float, lpu_watts: float,
    found: tuple[float, float, str],
) -> Point:  # fmt: skip
    """A system by its parts, from what `steady` says of it."""
    names = [f"{lpus} LPU"] * bool(lpus) + ([gpus.name] if gpus else [])
    watts = lpu_watts + (gpus.watts if gpus else 0.0)
    racks = lpus / LPUS_PER_RACK + (gpus.racks if gpus else 0.0)
    speed, total, limit = found
    count = gpus.count if gpus else 0
    system = " + ".join(names)
    return Point(kind, system, lpus, count, users, speed, total, first_s, watts, racks, limit)


def _interval_s(planned: Planned, points: tuple[LpuPoint, LpuPoint], each_s: float) -> float:
    """Seconds for which a token keeps the busiest stage at work, as a full pipeline shows."""
    return min(1 / points[1].tokens_per_s, each_s * _busiest_share(planned))


def _prompt_s(planned: Planned, turn: Turn) -> float:
    return sum(launch.seconds for launch in planned.timed.prefill(turn.prompt))


def _busiest_share(planned: Planned) -> float:
    """The part of a launch for which its busiest stage is at work."""
    best = planned.candidates[0]
    return min(1.0, best.interval_cycles / best.cycles)


def _lpu_watts(point: LpuPoint) -> float:
    assert point.joules_per_token is not None, "with_gpus asks for chips of known power"
    return point.joules_per_token * point.tokens_per_s


# --- GPUs alone -----------------------------------------------------------------------------------
def gpu_systems(
    model: Model, gpus: Gpus, turn: Turn, weight_bytes: float, users: tuple[int, ...]
) -> Iterator[Point]:
    """GPUs alone, as they achieve it, for numbers of users that they have memory for."""
    prompt_s = gpus.prompt_s(model, turn.prompt, weight_bytes)
    for batch in users:
        step = decode_step(model, gpus.device, gpus.count, batch, turn.context, weight_bytes, True)
        if step is None:
            continue
        # While a prompt is read nobody decodes: a turn of each of the others goes by meanwhile.
        turn_s = batch * prompt_s + turn.new * step.seconds
        speed = turn.new / (turn_s - prompt_s)
        total = batch * turn.new / turn_s
        limit = "prompts" if batch * prompt_s > turn.new * step.seconds else step.bound
        yield _point(GPU_ALONE, 0, gpus, batch, prompt_s, 0.0, (speed, total, limit))


# --- attention on GPUs, FFNs on LPUs --------------------------------------------------------------
@dataclass(frozen=True)
class Pass:
    """Some rows through all layers: seconds alone, and for how long they keep each part busy."""

    rows: int
    seconds: float
    busy: tuple[Stage, ...]

    @property
    def groups(self) -> int:
        """As many at a time as keep the busiest part at work."""
        return max(1, int(self.seconds / max(one.seconds for one in self.busy)))


def afd_systems(
    model: Model, planned: Planned, turn: Turn, gpus: Gpus, link: Between, weight_bytes: float
) -> Iterator[Point]:
    """AFD: `planned` is the plan of the FFN part; users go in groups of some rows each.

    For each number of rows, one group and as many as keep the busiest part at work. Prompts go in
    the longest chunks, close behind each other.
    """

    def through(rows: int, sequences: int) -> Pass:
        attention_s = gpus.attention_s(model, rows, turn.context, weight_bytes, sequences)
        moved_s = rows * model.hidden.size * ACTIVATION_BYTES / link.rate(gpus.count)
        return _pass(planned, rows, attention_s, moved_s, link, gpus)

    chunk = through(ROWS[-1], 1)
    chunks = turn.prompt / chunk.rows
    chips = len(planned.timed.decode(planned.timed.plan.context).instructions)
    for one in (through(rows, rows) for rows in ROWS):
        for count in sorted({1, one.groups}):
            users = one.rows * count
            if not gpus.holds(gpus.attention_bytes(model, users, turn.context, weight_bytes)):
                continue
            busy = [
                Stage(mine.name, turn.new * mine.seconds / one.rows + chunks * longest.seconds)
                for mine, longest in zip(one.busy, chunk.busy, strict=True)
            ]
            first_s = chunk.seconds + chunks * max(part.seconds for part in chunk.busy)
            found = steady(turn, users, one.seconds, first_s, *busy)
            watts = _ffn_watts(planned, chips, found[1])
            yield _point(AFD, chips, gpus, users, first_s, watts, found)


def _pass(
    planned: Planned, rows: int, attention_s: float, moved_s: float, link: Between, gpus: Gpus
) -> Pass:
    """Rows through attention, link, FFN and link of each layer, and the head on the LPUs."""
    timed, layers = planned.timed, len(planned.timed.plan.model.layers)
    hz, kind = timed.plan.spec.clock_hz, prefill_kind(rows, CONTEXT_BLOCK)
    limit = timed.clocks.pace(0).limit_cycles if timed.clocks else None
    head_s = rows * sum(step.cycles for step in timed.costs.head(timed.width, 1)) / hz
    stages = [
        sum(step.cycles for step in timed.costs.steps(stage, kind, limit)) / hz
        for stage in timed.work.kinds(kind)
    ]
    # A vector leaves when it is made and is used when it comes: what is left of a crossing is its
    # latency, a vector, and what the work on either side is too short to hide.
    hidden_s = min(attention_s, sum(stages) / layers)
    crossing_s = link.latency_s + VECTOR_BYTES / link.rate(gpus.count)
    crossing_s += max(0.0, moved_s - hidden_s)
    seconds = layers * (attention_s + 2 * crossing_s) + sum(stages) + head_s
    busy = (
        Stage("GPUs", layers * attention_s),
        Stage("link", layers * moved_s),
        Stage("LPUs", max([*stages[:-1], stages[-1] + head_s])),
    )
    return Pass(rows, seconds, busy)


def _ffn_watts(planned: Planned, chips: int, tokens_per_s: float) -> float:
    timed = planned.timed
    table = energy_table(timed.plan.spec)
    assert table is not None, "with_gpus asks for chips of known power"
    dynamic_j = table.dynamic_j(timed.activity(decode_kind(timed.plan.context)))
    return Joules(table, chips, dynamic_j, 1 / tokens_per_s).chips_j * tokens_per_s
