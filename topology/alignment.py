"""Clocks in motion: characterising links, aligning counters, and an hour of drifting oscillators.

All draws come from a seed. Nothing here changes a schedule: either every receive finds its vector
at the scheduled cycle, whatever the seed, or `simulate` raises and names the link.
"""

from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from topology.clocks import (
    PUBLISHED_JITTER_STD_CYCLES,
    ClockPlan,
    ClockSpec,
    spanning_tree_depths,
    spanning_tree_parents,
)
from topology.errors import BadSpec, MarginExceeded
from topology.fabric import compiled

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Characterisation:
    """Latency of one link over many HAC exchanges, in cycles."""

    minimum: int
    mean: float
    maximum: int
    std: float


def characterise(spec: ClockSpec, link: int, exchanges: int, seed: int) -> Characterisation:
    """Return what `exchanges` reflected counters say of one link's latency.

    A's counter travels to B, B sends it back at once, A compares: both ways of a cable are alike,
    so half the difference is the latency, read as a whole number of cycles modulo the HAC period
    and made absolute by counting overflows.
    """
    rng = np.random.default_rng([seed, link])
    mean = spec.link_mean_cycles[link % len(spec.link_mean_cycles)]
    sent = rng.integers(0, spec.hac_period_cycles, exchanges)
    # Jitter shows in the round trip; one way it counts half, so each way draws the published one.
    round_trip = 2 * (mean + jitter(spec, exchanges, rng))
    back = sent + np.rint(round_trip).astype(np.int64)
    overflows, hac = np.divmod(back, spec.hac_period_cycles)
    measured = (overflows * spec.hac_period_cycles + hac - sent) / 2
    whole = np.rint(measured).astype(np.int64)
    return Characterisation(
        int(whole.min()), float(whole.mean()), int(whole.max()), float(whole.std())
    )


def jitter(
    spec: ClockSpec, draws: int, rng: np.random.Generator, std_cycles: float | None = None
) -> Floats:
    """Return normal jitter in cycles, cut off where the clock-crossing FIFO bounds it.

    `std_cycles` is what really happens (default: the spec's); more of it moves the bounds out.
    """
    std = spec.jitter_std_cycles if std_cycles is None else std_cycles
    noise = rng.normal(0.0, std, draws)
    scale = max(1.0, std / PUBLISHED_JITTER_STD_CYCLES)
    return np.clip(noise, -spec.jitter_early_cycles * scale, spec.jitter_late_cycles * scale)


@dataclass(frozen=True)
class Alignment:
    """Counters after alignment: epochs it took, and how far each chip is off the root's time."""

    root: int
    epochs: int
    error_cycles: Floats  # per chip


def align(graph: nx.Graph, spec: ClockSpec, seed: int) -> Alignment:
    """Align all HACs to the root's, level by level, from random starting values.

    A child measures its distance to parent + latency and moves at most `nudge_cycles_per_epoch`,
    the short way round; levels work at the same time but a child ends after its parent.
    """
    fabric = compiled(graph)
    root, depth = spanning_tree_depths(graph)
    rng = np.random.default_rng([seed, 1])
    parent = spanning_tree_parents(fabric, depth)
    offset = rng.uniform(0, spec.hac_period_cycles, fabric.chips)
    blur = rng.normal(0, spec.jitter_std_cycles / np.sqrt(spec.exchanges), fabric.chips)
    error, done = np.zeros(fabric.chips), np.zeros(fabric.chips, np.int64)
    for level in range(1, int(depth.max()) + 1):
        chips = np.flatnonzero(depth == level)
        # Aligned to the parent as measured, and to whole cycles of its own clock.
        error[chips] = error[parent[chips]] + blur[chips] + rng.uniform(-0.5, 0.5, len(chips))
        apart = np.abs(offset[chips] - offset[parent[chips]])
        apart = np.minimum(apart, spec.hac_period_cycles - apart)
        epochs = np.ceil(apart / spec.nudge_cycles_per_epoch).astype(np.int64)
        done[chips] = done[parent[chips]] + epochs
    return Alignment(root, int(done.max()), error)


@dataclass(frozen=True)
class Hour:
    """Outcome of a simulation in which no receive missed."""

    seconds: int
    receives_checked: int
    worst_slip_cycles: float
    worst_link: tuple[int, int]
    slack_cycles: float


def simulate(
    graph: nx.Graph,
    plan: ClockPlan,
    drift_ppm: float | None = None,
    jitter_std_cycles: float | None = None,
    seed: int = 0,
    seconds: int = 3600,
    every_s: int = 1,
) -> Hour:
    """Let oscillators wander for `seconds`; check every link every `every_s`, at its worst moment.

    The worst moment is the end of a Runtime deskew interval, with the latest of the jitter drawn
    in that second; a link's misalignment is that of its two ends after `align`. `drift_ppm` and
    `jitter_std_cycles` are what really happens (default: what the plan was made for). Raises
    MarginExceeded for the first link and second that miss.
    """
    spec, fabric = plan.spec, compiled(graph)
    if not len(fabric.tail):
        raise BadSpec(fabric.name, "has no link whose clocks could differ", "name more chips")
    ppm = spec.drift_ppm if drift_ppm is None else drift_ppm
    std = spec.jitter_std_cycles if jitter_std_cycles is None else jitter_std_cycles
    rng = np.random.default_rng([seed, 2])
    late = spec.jitter_late_cycles * max(1.0, std / spec.jitter_std_cycles)
    clock = rng.uniform(-ppm, ppm, fabric.chips)
    worst, where = -np.inf, 0
    error = align(graph, spec, seed).error_cycles
    # SACs are brought back to the HACs by whole cycles: half a cycle more.
    skew = error[fabric.tail] - error[fabric.head] + 0.5
    for second in range(0, seconds, every_s):
        # Temperature moves each oscillator a little, within its tolerance.
        clock = np.clip(clock + rng.normal(0, ppm / 60, fabric.chips), -ppm, ppm)
        apart = (clock[fabric.head] - clock[fabric.tail]) * 1e-6
        drift = apart * plan.runtime_deskew_interval_cycles
        # The latest of the many exchanges of a second: near the bound of the distribution.
        tardy = np.minimum(std * rng.uniform(3.5, 4.5, len(drift)), late)
        slip = drift + tardy + skew
        at = int(slip.argmax())
        if slip[at] > spec.margin_cycles:
            cycle = second * int(graph.graph["profile"].clock_hz)
            ends = int(fabric.tail[at]), int(fabric.head[at])
            missed = int(np.ceil(slip[at] - spec.margin_cycles))
            raise MarginExceeded(*ends, cycle, missed, spec.margin_cycles)
        if slip[at] > worst:
            worst, where = float(slip[at]), at
    return Hour(
        seconds=seconds,
        receives_checked=-(-seconds // every_s) * len(fabric.tail),
        worst_slip_cycles=worst,
        worst_link=(int(fabric.tail[where]), int(fabric.head[where])),
        slack_cycles=spec.margin_cycles - worst,
    )
