"""Where a model is planned if nobody names a topology."""

from functools import partial
from itertools import product
from operator import mul

from chip.spec import ChipSpec
from cluster.compiler.choose import PlanRequest, default_topology
from cluster.compiler.limits import NODE_CHIPS
from cluster.compiler.sizes import Sizes
from cluster.model.graph.graph import Model
from cluster.model.mixture import expert_parts, is_mixture
from cluster.planning.cost_store import CostStore
from cluster.planning.refusals import fewest, least_chips
from topology.families.dragonflies import RACK_CHIPS, WIDEST_GROUP, most_groups

LARGEST_DRAGONFLY = 10440


def chosen_topology(
    request: PlanRequest, model: Model, spec: ChipSpec, store: CostStore
) -> tuple[str, tuple[str, ...]]:
    """The topology of a plan, and what to say of it where it was not named.

    That is what `lpu run` takes for so many chips, and for many a dragonfly, with groups of so many
    chips as a layer takes where these are more than a rack has.
    """
    if request.topology:
        return request.topology, ()
    chips, tp = request.chips, request.tp or 1
    if not chips:
        if request.tp and request.pp:
            chips = request.tp * request.pp
        else:
            size = request.context, request.weight_type, request.batch
            sizes = Sizes(model, spec, *size, store=store)
            spread_first = is_mixture(model) and expert_parts(model) == 1
            ways = (sizes,) if spread_first else (sizes, sizes.cutting)
            for some in ways if not request.tp else ():
                if wide := _wide(some, request.pp, store):
                    return wide
            tp, stages = fewest(ways, request.tp, request.pp, _in_nodes) or (1, NODE_CHIPS)
            chips = _in_nodes(tp, stages) if tp * stages > NODE_CHIPS else tp * stages
    if chips <= 2 * NODE_CHIPS or chips > LARGEST_DRAGONFLY:
        return default_topology(chips, tp), ()
    return f"dragonfly:{-(-chips // NODE_CHIPS) * NODE_CHIPS}", ()


def _wide(sizes: Sizes, pp: int | None, store: CostStore) -> tuple[str, tuple[str, ...]] | None:
    """A dragonfly of the narrowest groups that hold a layer, if they are wider than a rack.

    In one of racks each of them would have cables, and so schedules, of its own.
    """
    widths = sorted(tp for _, tp in least_chips(sizes, None, pp, mul))
    if not widths or widths[0] <= RACK_CHIPS:
        return None
    whole = [tp for tp in widths if tp % NODE_CHIPS == 0]
    for number, tp in enumerate(whole):
        shapes = product(whole[number : number + 2], sizes.looks[:1], (True, False))
        store.ahead([partial(sizes.most_layers, *shape) for shape in shapes])  # or the next one
        shortest = sizes.shortest(tp)
        if shortest and shortest <= (pp or shortest):
            groups = max(2, pp or shortest)
            if tp > WIDEST_GROUP - NODE_CHIPS or groups > most_groups(tp):
                return None
            wide = f"dragonfly:{groups * tp}:{tp}"
            why = f"groups of {tp} chips, which a layer takes, are wider than a rack"
            return wide, (f"{why}: in {wide} all of them are cabled alike",)
    return None


def _in_nodes(tp: int, pp: int) -> int:
    """Chips of nodes whose groups lie inside one, or have whole ones to themselves."""
    if tp <= NODE_CHIPS:
        return -(-pp // (NODE_CHIPS // tp)) * NODE_CHIPS
    return -(-tp // NODE_CHIPS) * NODE_CHIPS * pp
