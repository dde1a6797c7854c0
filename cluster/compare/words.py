"""How rows of a comparison are said, on the screen and on a page."""

from cluster.compare.shortlist import Shown
from cluster.compare.table import Row

SHORT_HEAD = ("devices", "users", "tok/s", "achieved", "in all", "J/token", "limit")
HEAD = ("device", "n", "users", "context", "tok/s", "in all", "J/token", "limit", "kind")
WORDS = (
    "tok/s: of each user. LPUs (GroqChip 1) by the schedules that would run, with the host link; "
    "others at most, by bandwidth and operations of their data sheets: a roofline.",
    "achieved: the same with the share of bandwidth, and the collectives, that decoders are "
    "measured to get there. in all: tok/s of all users together.",
    "J/token: devices alone, at their TDP; LPUs modelled. limit: what takes most of the time, or "
    "keeps users from being more.",
)
KINDS = (
    "kind: emulated by this program, roofline of published rates, achieved with measured shares "
    "of bandwidth and latencies of collectives, or published."
)
LIMITS = {
    "collectives": "links",
    "pipeline full": "stages",
    "SRAM full": "SRAM",
    "shared chips": "routes",
}


def joules(row: Row) -> str:
    """Joules of a token, or nothing where no power is known."""
    return "" if row.joules_per_token is None else f"{row.joules_per_token:.3g}"


def short_cells(one: Shown) -> tuple[str, ...]:
    """The cells of a row below SHORT_HEAD."""
    row, achieved = one.row, one.achieved
    devices = f"{row.count} LPUs" if row.kind == "emulated" else f"{row.count} x {row.device}"
    each = "" if row.kind == "published" else f"{row.tokens_per_s_per_user:,.0f}"
    really = f"{achieved.tokens_per_s_per_user:,.0f}" if achieved else ""
    limit = "published" if row.kind == "published" else LIMITS.get(row.bound, row.bound)
    speeds = each, really, f"{row.tokens_per_s:,.0f}"
    return (devices, f"{row.batch}", *speeds, joules(row), limit)


def cells(row: Row) -> tuple[str, ...]:
    """The cells of a row below HEAD."""
    speeds = f"{row.tokens_per_s_per_user:,.0f}", f"{row.tokens_per_s:,.0f}"
    place = row.device, f"{row.count}", f"{row.batch}", f"{row.context}"
    return (*place, *speeds, joules(row), row.bound, row.kind)
