"""Where a model is planned if nobody names a topology."""

from functools import partial
from itertools import product
from math import isqrt
from operator import mul

from chip.spec import ChipSpec
from cluster.compiler.choose import PlanRequest, default_topology
from cluster.compiler.limits import NODE_CHIPS
from cluster.compiler.sizes import Sizes
from cluster.model.graph.graph import Model
from cluster.model.mixture import expert_parts, is_mixture
from cluster.planning.cost_store import CostStore
from cluster.planning.refusals import fewest, least_chips
from topology.families.dragonflies import RACK_CHIPS
from topology.families.groups import WIDEST_GROUP

LARGEST_DRAGONFLY = 10440


def chosen_topology(
    request: PlanRequest, model: Model, spec: ChipSpec, store: CostStore
) -> tuple[str, tuple[str, ...]]:
    """The topology of a plan, and what to say of it where it was not named.

    That is what `lpu run` takes for so many chips, and for many a dragonfly; where a layer takes
    more chips than a rack has, a ring of groups that are cabled alike.
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
            least = fewest(ways, request.tp, request.pp, _in_nodes)
            if not least and not request.tp and (wide := _wide(sizes.cutting, request.pp, store)):
                return wide  # better than whole experts, of which one may have all that is to do
            tp, stages = least or (1, NODE_CHIPS)
            chips = _in_nodes(tp, stages) if tp * stages > NODE_CHIPS else tp * stages
    if chips <= 2 * NODE_CHIPS or chips > LARGEST_DRAGONFLY:
        return default_topology(chips, tp), ()
    return f"dragonfly:{-(-chips // NODE_CHIPS) * NODE_CHIPS}", ()


def _wide(sizes: Sizes, pp: int | None, store: CostStore) -> tuple[str, tuple[str, ...]] | None:
    """A ring of the narrowest groups that hold a layer, if they are wider than a rack.

    In a dragonfly each of them would have cables, and so schedules, of its own. Groups for which
    nodes have too few ports are the last dimensions of a torus.
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
            stages = pp or shortest
            wide = f"groups:{max(2, stages) * tp}:{tp}"
            if tp > WIDEST_GROUP:
                sides = *_rectangle(stages), NODE_CHIPS, *_factors(tp // NODE_CHIPS)
                wide = f"torus:{'x'.join(str(side) for side in sides if side > 1)}"
            why = f"groups of {tp} chips, which a layer takes, are wider than a rack"
            return wide, (f"{why}: in {wide} all of them are cabled alike",)
    return None


def _rectangle(count: int) -> tuple[int, int]:
    """Sides of a near square of at least so many: in a row their clocks would drift too far."""
    side = isqrt(count - 1) + 1
    return side, -(-count // side)


def _factors(count: int) -> tuple[int, int]:
    """The two factors of a number that are nearest to each other."""
    small = next(n for n in range(isqrt(count), 0, -1) if count % n == 0)
    return count // small, small


def _in_nodes(tp: int, pp: int) -> int:
    """Chips of nodes whose groups lie inside one, or have whole ones to themselves."""
    if tp <= NODE_CHIPS:
        return -(-pp // (NODE_CHIPS // tp)) * NODE_CHIPS
    return -(-tp // NODE_CHIPS) * NODE_CHIPS * pp
