"""Ten times faster at a tenth of the energy? A sentence made from the rows."""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.compare.shortlist import nearest_context
from cluster.compare.table import Row
from cluster.runs.display import counted

TEN = 10.0


@dataclass(frozen=True)
class Verdict:
    """Ratios of the LPU to the best of the others, at the LPU's context.

    `answer` says in a sentence whether it is ten times the speed at a tenth of the energy,
    `sentence` what that is compared with.
    """

    faster_than_roofline: float
    faster_than_achieved: float
    energy_of_one_user: float | None
    energy_at_speed: float | None
    energy_at_best: float | None
    sentence: str
    answer: str


def verdict(rows: Sequence[Row]) -> Verdict:
    """Compare the emulated rows with all others of the nearest context."""
    alone, full = (r for r in rows if r.kind == "emulated")
    near = nearest_context(rows)
    others = [r for r in rows if r.context == near and r.kind in ("roofline", "achieved")]
    fastest = {kind: _fastest([r for r in others if r.kind == kind])
               for kind in ("roofline", "achieved")}  # fmt: skip
    ratio = {kind: alone.tokens_per_s_per_user / row.tokens_per_s_per_user
             for kind, row in fastest.items()}  # fmt: skip
    metered = [r for r in others if r.joules_per_token is not None and r.kind == "roofline"]
    users = [r for r in metered if r.batch == 1]
    frugal = min(users, key=_joules, default=None)
    # as fast for a user as the full pipeline is, or the fastest there is
    quick = [r for r in metered if r.tokens_per_s_per_user >= full.tokens_per_s_per_user]
    speedy = min(quick, key=_joules, default=None)
    best = min(metered, key=_joules, default=None)
    if full.joules_per_token is None:
        energy: list[float | None] = [None, None, None]
    else:
        energy = [full.joules_per_token / _joules(r) if r else None for r in (frugal, speedy, best)]
    sentence = " ".join(
        (_speed(ratio, fastest["roofline"], alone), _energy(energy, frugal, speedy, best, full))
    )
    one, at_speed, at_best = energy
    ratios = ratio["roofline"], ratio["achieved"]
    answer = _answer(ratio["roofline"], fastest["roofline"], one, frugal, alone)
    return Verdict(*ratios, one, at_speed, at_best, sentence, answer)


def _answer(faster: float, best: Row, energy: float | None, frugal: Row | None, alone: Row) -> str:
    quick, thrifty = faster >= TEN, energy is not None and energy <= 1 / TEN
    word = {(True, True): "Yes", (True, False): "Only the speed", (False, True): "Only the energy"}
    said = (
        f"Ten times the speed at a tenth of the energy? {word.get((quick, thrifty), 'No')}: "
        f"{alone.count} LPUs give one user {alone.tokens_per_s_per_user:,.0f} tokens/s, "
        f"{faster:.1f} x the fastest other ({best.count} x {best.device})"
    )
    if energy is None or frugal is None:
        return f"{said}; their energy is not known."
    return (
        f"{said}, and with all their users a token takes {energy:.2g} x the energy of the "
        f"thriftiest other with one ({frugal.count} x {frugal.device})."
    )


def _fastest(rows: Sequence[Row]) -> Row:
    return max(rows, key=lambda r: r.tokens_per_s_per_user)


def _joules(row: Row) -> float:
    assert row.joules_per_token is not None
    return row.joules_per_token


def _speed(ratio: dict[str, float], best: Row, alone: Row) -> str:
    answer = "yes" if ratio["roofline"] >= TEN else "no"
    if answer == "no" and ratio["achieved"] >= TEN:
        answer = "only against what GPUs achieve today, not against what they could"
    return (
        f"Ten times faster for one user: {answer}. {alone.tokens_per_s_per_user:,.0f} tokens/s on "
        f"{alone.count} chips are {ratio['roofline']:.1f} x the roofline of the fastest other, "
        f"{best.count} x {best.device}, and {ratio['achieved']:.1f} x what such devices achieve "
        f"with the bandwidth and collectives that decoders are measured to get."
    )


def _energy(
    energy: Sequence[float | None],
    frugal: Row | None,
    speedy: Row | None,
    best: Row | None,
    full: Row,
) -> str:
    one, at_speed, at_best = energy
    if one is None or at_best is None or frugal is None or best is None:
        return "Energy: not known for this chip."
    answer = "yes" if one <= 1 / TEN else "no"
    text = (
        f"At a tenth of the energy: {answer} against one user on {frugal.count} x {frugal.device} "
        f"({one:.2f} x its {_joules(frugal):.3g} J per token), with "
        f"{counted(full.batch, 'user')} filling the pipeline at {_joules(full):.3g} J per token;"
    )
    if at_speed is None or speedy is None:
        text += " no other is as fast for each user, at any energy;"
    else:
        text += (
            f" {at_speed:.2f} x at equal speed for each user ({counted(speedy.batch, 'user')} "
            f"on {speedy.count} x {speedy.device});"
        )
    times = f"{at_best:,.0f}" if at_best >= 100 else f"{at_best:.3g}"
    return (
        f"{text} {times} x the energy of {counted(best.batch, 'user')} on "
        f"{best.count} x {best.device}, which is slower for each by "
        f"{full.tokens_per_s_per_user / best.tokens_per_s_per_user:.1f} x."
    )
