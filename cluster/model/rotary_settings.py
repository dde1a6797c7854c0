"""The rotary embedding that settings ask for, in either generation of the format."""

from cluster.model.graph.rotary import RotaryTable
from cluster.model.rope import KINDS, RopeScaling, yarn_magnitude
from cluster.model.settings import Settings

THETA = 10000.0  # where nothing is said
_KIND_KEYS = ("rope_type", "type")


def rotary_table(
    settings: Settings, width: int, default_theta: float = THETA, table: Settings | None = None
) -> RotaryTable:
    """The table for heads that turn `width` elements; raises ModelError for what is not known.

    `table` is the part of the settings that is about it, if not the usual one.
    """
    table = table or settings.table("rope_scaling", "rope_parameters")
    theta = settings.number("rope_theta", default_theta)
    theta = table.number("rope_theta", theta)
    if theta <= 1:
        raise settings.error(f"'rope_theta' is {theta}, it must be above 1")
    if table.number("partial_rotary_factor", 1.0) != 1.0:
        raise settings.error("has heads that rotate in part, which can not be computed")
    return RotaryTable(theta, width, rope_scaling(settings, table))


def rope_scaling(settings: Settings, table: Settings) -> RopeScaling | None:
    """How `table` stretches the frequencies of the model; None where it does not."""
    context = settings.whole("max_position_embeddings")
    context = settings.whole("original_max_position_embeddings", context)
    original = table.whole("original_max_position_embeddings", context)
    kinds = [table.text(key) for key in _KIND_KEYS if table.has(key)]
    kind = kinds[0] if kinds else "default"
    if kind == "default":
        return None
    if kind == "factors":
        factors = tuple(float(factor) for factor in table.items("factors"))
        return RopeScaling(kind, 1.0, factors=factors)
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise settings.error(f"scales its rotary embedding by '{kind}'", f"known: {known}")
    factor = table.number("factor")
    if kind == "llama3":
        low, high = table.number("low_freq_factor"), table.number("high_freq_factor")
        return RopeScaling(kind, factor, original, low, high)
    if kind == "yarn":
        low, high = table.number("beta_slow", 1.0), table.number("beta_fast", 32.0)
        truncate = table.flag("truncate", True)
        return RopeScaling(kind, factor, original, low, high, _magnitude(table, factor), truncate)
    return RopeScaling(kind, factor, original)


def _magnitude(table: Settings, factor: float) -> float:
    """Of cosine and sine under YaRN: as given, the ratio of two, or the paper's."""
    own = yarn_magnitude(factor)
    one, all_dims = (table.number(key, 0.0, positive=False) for key in ("mscale", "mscale_all_dim"))
    if one and all_dims:
        own = yarn_magnitude(factor, one) / yarn_magnitude(factor, all_dims)
    return table.number("attention_factor", own)
