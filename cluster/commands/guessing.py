"""Speculative decoding, as `lpu plan` asks for and prints it."""

from typing import TYPE_CHECKING, Any

from cluster.errors import BadValue
from cluster.runs.display import counted

if TYPE_CHECKING:
    from cluster.planning.speculation import Guessing

GUESSES = 4  # under way, where nobody says how many


def asked_guessing(
    acceptance: float | None, draft: str | None, count: int | None
) -> "Guessing | None":
    """What is asked for, if anything; raises BadValue, or UnknownName for a draft."""
    if acceptance is None and draft is None and count is None:
        return None
    from cluster.planning.speculation import Guessing  # with machines, which take long to load
    from cluster.runs.drafting import OPTION, read_draft

    choice = None if draft is None else read_draft(draft)
    if acceptance is not None:
        return Guessing(acceptance, GUESSES if count is None else count, choice)
    for option, value in ((OPTION, draft), ("--draft-tokens", count)):
        if value is not None:
            reason = "needs --acceptance, the share of guesses that are right: a plan runs nothing"
            raise BadValue(option, value, reason)
    return None


def guessing_lines(found: dict[str, Any]) -> dict[str, str]:
    """What guesses gain, if that was asked for."""
    if "speculation" not in found:
        return {}
    gain = found["speculation"]
    who = gain["draft"] or "guesses that take no time"
    on = f" on {counted(gain['draft_chips'], 'chip')} of its own" if gain["draft_chips"] else ""
    return {
        "speculation": f"{who}{on}: {gain['acceptance']:.0%} of {gain['draft_tokens']} guesses "
        f"right give {gain['tokens_per_round']:.2f} tokens a round, "
        f"{gain['tokens_per_s']:,.1f} tokens/s (x{gain['speedup']:.2f}); on "
        f"{counted(gain['pp'], 'stage')} x tp {gain['tp']}"
    }
