"""What takes most of a token's cycles, in words, and what would make it less."""

from collections.abc import Mapping, Sequence

from cluster.planning.candidates import Candidate

# What each part of a token's cycles is, what makes it less, and which other plans would have that.
_WIDER, _NARROWER, _SHORTER = "wider tensor groups", "narrower tensor groups", "fewer stages"
_WORDS = {
    "attention": ("attention: projections, norms and softmax", "share them out", _WIDER),
    "ffn": ("the FFN: its weights enter the MXM eight columns a cycle", "share them out", _WIDER),
    "all_reduce": ("all-reduces over the links", "need less, as do shorter links", _NARROWER),
    "clocks": ("the start of the chips and the waits that re-align their clocks", "", ""),
    "lm_head": ("the LM head", "share it out", _WIDER),
    "stage_transfers": ("transfers between stages", "need less", _SHORTER),
}


def bottleneck(
    breakdown: Mapping[str, int],
    candidates: Sequence[Candidate],
    ruled_out: Sequence[Sequence[int]],
) -> str:
    """What takes most, and a remedy; or that the remedy is worse, in all that were looked at.

    Those `ruled_out` by a bound are widths and stages.
    """
    most = max(breakdown, key=lambda name: breakdown[name])
    what, helps, remedy = _WORDS[most]
    best, *others = candidates
    slower = [*((other.tp, other.pp) for other in others), *ruled_out]
    tried = {
        _WIDER: any(tp > best.tp for tp, _ in slower),
        _NARROWER: any(tp < best.tp for tp, _ in slower),
        _SHORTER: any(pp < best.pp for _, pp in slower),
    }
    said = f"{breakdown[most] / sum(breakdown.values()):.0%} of a token's cycles are {what}"
    if not remedy:
        return said
    return f"{said}; {remedy} " + ("are slower in all" if tried[remedy] else helps)
