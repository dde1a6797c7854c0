"""The bisection: the fewest bytes per second between two halves of the chips, one direction.

Finding it is NP-hard. Small graphs are searched exactly; larger ones get the best of many cuts
(by id rotated, by packaging, by coordinate, by the Fiedler vector), each improved by swaps, which
is an upper bound. It counts as exact too when it meets the spectral lower bound.
"""

from dataclasses import dataclass
from itertools import combinations

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import ArpackNoConvergence, eigsh

from topology.fabric import Fabric, Ints, compiled

EXHAUSTIVE_CHIPS = 16
_SPECTRAL_CHIPS = 4096
_ROTATIONS = 64
_RESTARTS = 200  # of the eigensolver: a torus of 1,024 chips takes 20

Floats = NDArray[np.float64]
Side = NDArray[np.bool_]


@dataclass(frozen=True)
class Cut:
    """A balanced cut; `side` is true for the chips (in id order) of one half."""

    bytes_per_s: float
    cables: int
    exact: bool
    side: Side


def bisection(graph: nx.Graph) -> Cut:
    """Return the best balanced cut found (halves differ by at most one chip)."""
    fabric, weights = compiled(graph), _weights(graph)
    chips = len(fabric.alive)
    if chips <= EXHAUSTIVE_CHIPS:
        side, exact = _exhaustive(weights.toarray()), True
    else:
        order, bound = _spectral(weights)
        cuts = [_halves(o, r) for o in _orders(graph, order) for r in _turns(chips)]
        values = [_value(weights, cut) for cut in cuts]
        best = sorted(range(len(cuts)), key=values.__getitem__)[:4]
        side = min((_improved(weights, cuts[i]) for i in best), key=lambda s: _value(weights, s))
        exact = bound > 0 and _value(weights, side) <= bound * (1 + 1e-6)
    return Cut(_value(weights, side), _cables_across(fabric, side), exact, side)


def _weights(graph: nx.Graph) -> csr_array:
    """Return payload bytes per second between chips, numbered densely in id order."""
    fabric, clock_hz = compiled(graph), graph.graph["profile"].clock_hz
    rate = np.array([float(clock_hz * fabric.payload_bytes / pace) for pace in fabric.paces])
    dense = np.searchsorted(fabric.alive, np.stack([fabric.tail, fabric.head]))
    size = len(fabric.alive)
    return csr_array((rate[fabric.pace] * fabric.cables, (dense[0], dense[1])), shape=(size, size))


def _value(weights: csr_array, side: Side) -> float:
    return float((weights @ (~side).astype(float))[side].sum())


def _cables_across(fabric: Fabric, side: Side) -> int:
    full = np.zeros(fabric.chips, bool)
    full[fabric.alive] = side
    return int(fabric.cables[full[fabric.tail] & ~full[fabric.head]].sum())


def _exhaustive(dense: Floats) -> Side:
    chips = len(dense)
    best, best_side = np.inf, np.zeros(chips, bool)
    others = list(combinations(range(1, chips), chips // 2 - (chips % 2 == 0)))
    for at in range(0, len(others), 4096):
        some = np.array(others[at : at + 4096], np.intp)  # of two chips: one choice, of none
        sides = np.zeros((len(some), chips))
        np.put_along_axis(sides, some, 1, 1)
        sides[:, 0] = chips % 2 == 0  # by symmetry chip 0 is on the first side of even halves
        values = ((sides @ dense) * (1 - sides)).sum(axis=1)
        if values.min() < best:
            best, best_side = float(values.min()), sides[values.argmin()].astype(bool)
    return best_side


def _spectral(weights: csr_array) -> tuple[Ints | None, float]:
    """Return chips ordered by the Fiedler vector and the bound lambda_2 * n / 4 (0 if skipped)."""
    size = weights.shape[0]
    if size > _SPECTRAL_CHIPS:
        return None, 0.0
    laplacian = diags_array(weights.sum(axis=1)) - weights
    scale = float(weights.sum(axis=1).max())
    if size <= 512:
        values, vectors = np.linalg.eigh(laplacian.toarray() / scale)
    else:
        start = np.random.default_rng(0).standard_normal(size)
        flipped = (laplacian / scale * -1) + 2 * diags_array(np.ones(size))
        try:
            found = eigsh(flipped, k=2, which="LA", v0=start, tol=1e-8, maxiter=_RESTARTS)
        except ArpackNoConvergence:  # long thin graphs, whose bound is far below any cut
            return None, 0.0
        values, vectors = 2 - found[0][::-1], found[1][:, ::-1]
    # Halves of n chips: cut >= lambda_2 * |A| * |B| / n.
    bound = float(values[1]) * scale * (size // 2) * (size - size // 2) / size
    return np.argsort(vectors[:, 1], kind="stable"), bound


def _orders(graph: nx.Graph, spectral: Ints | None) -> list[Ints]:
    """Return orders of the chips, the halves of which are candidate cuts."""
    chips = sorted(graph)
    orders = [np.arange(len(chips))]
    places = [graph.nodes[chip].get("coordinates", (chip,)) for chip in chips]
    if len({len(place) for place in places}) == 1:
        columns = np.array(places).T
        orders += [np.lexsort((np.arange(len(chips)), column)) for column in columns]
    return orders if spectral is None else [*orders, spectral]


def _turns(chips: int) -> range:
    return range(0, max(chips // 2, 1), max(1, chips // 2 // _ROTATIONS))


def _halves(order: Ints, turn: int) -> Side:
    side = np.zeros(len(order), bool)
    side[np.roll(order, -turn)[: len(order) // 2]] = True
    return side


def _improved(weights: csr_array, side: Side, rounds: int = 64) -> Side:
    """Swap the best pair of chips while that helps (the greedy part of Kernighan-Lin)."""
    side = side.copy()
    degree = weights.sum(axis=1)
    for _ in range(rounds):
        inner = weights @ side.astype(float)
        # What moving a chip to the other side would save.
        saved = np.where(side, degree - 2 * inner, 2 * inner - degree)
        here, there = np.flatnonzero(side), np.flatnonzero(~side)
        a = here[np.argsort(-saved[here], kind="stable")[:8]]
        b = there[np.argsort(-saved[there], kind="stable")[:8]]
        between = weights[a][:, b].toarray()
        gain = saved[a][:, None] + saved[b][None, :] - 2 * between
        at = np.unravel_index(gain.argmax(), gain.shape)
        if gain[at] <= 1e-6 * max(float(degree.max()), 1.0):
            break
        side[a[at[0]]], side[b[at[1]]] = False, True
    return side
