"""Why no plan of a model fits, and what would."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from heapq import heapify, heappop, heappush
from itertools import product
from operator import mul

from chip.spec import ChipSpec
from cluster.compiler.choose import PlanRequest
from cluster.compiler.limits import (
    CONTEXT_BLOCK,
    check_weights,
    least_rows,
    widest_of,
    widths_of,
)
from cluster.compiler.sizes import Sizes
from cluster.errors import BadValue, DoesNotFit
from cluster.model.graph.counts import MATRIX_BYTES
from cluster.model.graph.graph import Model
from cluster.model.mixture import expert_parts, residents, spread_experts

# The largest of SmolLM2-135M over some 60 tokens: docs/accuracy.md has the command.
LOGIT_DISTANCES = {"w8a16": 1.57, "int8": 5.86, "fp16": 0.0651}

PUBLISHED = "weights are int8, as the model is published in 8 bits; --weights fp16 has them in 16"


def takes_int8(model: Model, spec: ChipSpec) -> bool:
    """Whether a chip can have the weights of a model in int8."""
    try:
        check_weights(model, spec, "int8")
    except BadValue:
        return False
    return True


def check_shape(request: PlanRequest, chips: int) -> None:
    """Raise BadValue for a shape that needs more chips than there are."""
    tp, pp = request.tp or 1, request.pp or 1
    if tp * pp > chips:
        shape = " x ".join(f"--{name} {value}" for name, value in (("tp", tp), ("pp", pp)))
        option = "--chips" if request.chips else "--topology"
        problem = f"has {chips} {'chip' if chips == 1 else 'chips'}, {shape} needs {tp * pp}"
        raise BadValue(option, request.chips or request.topology or "", problem)


def fewest(
    ways: Iterable[Sizes],
    tp: int | None,
    pp: int | None,
    chips: Callable[[int, int], int] = mul,
) -> tuple[int, int] | None:
    """(tp, pp) with the fewest chips, under what is fixed of it; None if nothing fits.

    Of plans whose matrices lie another way only where no others fit.
    """
    found = (_fewest(sizes, tp, pp, chips) for sizes in ways)
    return next((shape for shape in found if shape), None)


def _fewest(
    sizes: Sizes, tp: int | None, pp: int | None, chips: Callable[[int, int], int]
) -> tuple[int, int] | None:
    """Widths are looked at closer and closer, the one with the fewest chips first."""
    queue = [(count, width, 0, 0) for count, width in least_chips(sizes, tp, pp, chips)]
    heapify(queue)
    while queue:
        _, width, looks, stages = heappop(queue)
        if looks == len(sizes.looks):
            return width, stages
        shortest = sizes.stages(width, sizes.looks[looks])
        if shortest and shortest <= (pp or shortest):
            stages = pp or shortest
            heappush(queue, (chips(width, stages), width, looks + 1, stages))
    return None


def least_chips(
    sizes: Sizes, tp: int | None, pp: int | None, chips: Callable[[int, int], int]
) -> Iterator[tuple[int, int]]:
    """Chips that plans of each width need at least, before anything is laid out."""
    for width in [tp] if tp else widths_of(sizes.model):
        least = sizes.least_stages(width)
        if least is not None and least <= (pp or least):
            yield chips(width, pp or least), width


def _fewest_in_int8(sizes: Sizes) -> tuple[int, int] | None:
    """(tp, pp) with the fewest chips if weights are int8 instead; None if they cannot be."""
    if not takes_int8(sizes.model, sizes.spec):
        return None
    narrow = Sizes(sizes.model, sizes.spec, sizes.context, "int8", sizes.slots)
    return fewest((narrow, narrow.cutting), None, None) if MATRIX_BYTES[sizes.weights] > 1 else None


def fits_on(sizes: Sizes, request: PlanRequest, chips: int) -> bool:
    """Whether any plan of the widths and stages asked for has room on so many chips."""
    every = [request.tp] if request.tp else widths_of(sizes.model)
    return any(sizes.fits_on(chips, tp, request.pp) for tp in every)


def spreads(
    sizes: Sizes, request: PlanRequest
) -> Iterator[tuple[bool, bool, int, int, PlanRequest]]:
    """(int8, cut, chips, their width, request) for each way to spread experts, by words alone.

    That is what its plans take at least; other plans of a mixture have no room.
    """
    model, spec = sizes.model, sizes.spec
    mixed = residents(model, 1)
    if mixed is None or model.stand_in is not None or expert_parts(model) > 1:
        return
    most = widest_of(model) // (request.tp or 1)
    every = [ep for ep in range(2, most + 1) if mixed.count % ep == 0]
    for weights in [request.weights] if request.weights else ["fp16", "int8"]:
        for ep in every:
            spread = spread_experts(model, ep)
            wide = Sizes(spread, spec, sizes.context, weights, sizes.slots, store=sizes.store)
            tp = request.tp * ep if request.tp else None
            for some in (wide, wide.cutting):
                least = min(least_chips(some, tp, request.pp, mul), default=None)
                if least is not None:
                    shape = replace(request, ep=ep, weights=weights)
                    yield weights == "int8", some.cut, *least, shape


def _int8_fits(sizes: Sizes, request: PlanRequest, chips: int) -> bool:
    """Whether int8 would fit where fp16 does not."""
    if not takes_int8(sizes.model, sizes.spec):
        return False
    size = (sizes.model, sizes.spec, request.context, "int8", request.batch)
    narrow = Sizes(*size, cut=sizes.cut, store=sizes.store)
    return MATRIX_BYTES[request.weight_type] > 1 and fits_on(narrow, request, chips)


def does_not_fit(sizes: Sizes, request: PlanRequest, chips: int) -> DoesNotFit:
    """The error for a model that has no room on `chips` chips."""
    model, slots, context = sizes.model, sizes.slots, sizes.context
    int8 = _int8_fits(sizes, request, chips)
    widths = widths_of(model)
    every = widths[-1], len(model.layers)
    caches = "caches of " + (f"{slots:,} sequences of " if slots > 1 else "") + f"{context} tokens"
    free = fewest((sizes.whole, sizes.cutting), None, None)
    tp = request.tp or max((width for width in widths if width <= chips), default=widths[0])
    pp = request.pp or max(1, min(every[1], chips // tp))
    fewer = most_sequences(sizes, request, chips)
    if fewer:
        advice = f"most of it for {caches}; what fits on {chips}: --batch {fewer}"
        advice += f"; or --weights int8 on these {chips}" if int8 else ""
    elif free:
        advice = f"what fits: {_shape(model, *free)} ({mul(*free)} chips) or more"
        advice += f", on --chips {mul(*free)}"
        advice += f"; or --weights int8 on these {chips}" if int8 else ""
    elif narrow := _fewest_in_int8(sizes):
        advice = f"what fits: --weights int8 {_shape(model, *narrow)}"
        advice += f" ({mul(*narrow)} chips) or more, on --chips {mul(*narrow)}"
    else:
        tp, pp = request.tp or every[0], request.pp or every[1]
        advice = f"no plan of {model.name} fits chip {sizes.spec.name}"
        if slots > 1 or context > CONTEXT_BLOCK:
            options = [f"--batch {slots}"] * (slots > 1) + [f"--context {context}"] * (
                context > CONTEXT_BLOCK
            )
            advice = f"{advice} with {caches}; lower {' or '.join(options)}"
    needs, has = sizes.wanted_bytes(tp, -(-every[1] // pp), head=True), sizes.spec.sram_bytes
    more = " and activations and programs besides" if needs <= has else ""
    if needs <= has and -(-every[1] // pp) > sizes.room(tp, head=True):
        more = " whose matrices find no room on their side of a chip"
    return DoesNotFit(pp - 1, needs, has, f"with {_shape(model, tp, pp)}{more}; {advice}")


def _shape(model: Model, tp: int, pp: int) -> str:
    """The options of a plan whose stages have `tp` chips."""
    ep = expert_parts(model)
    return f"--tp {tp // ep}" + f" --ep {ep}" * (ep > 1) + f" --pp {pp}"


def most_sequences(sizes: Sizes, request: PlanRequest, chips: int) -> int:
    """The most sequences, fewer than asked for, for which there is room; 0 if for none.

    Also in int8, unless the request says otherwise, and with matrices that are cut.
    """
    model, size = sizes.model, (sizes.model, sizes.spec, sizes.context)
    each = (request.weights,) if request.weights else ("fp16", "int8")

    def fits(slots: int) -> bool:
        tried = product((False, True), each, least_rows(model, slots, request.rows))
        return any(
            fits_on(Sizes(*size, weights, slots, rows, cut, store=sizes.store), request, chips)
            for cut, weights, rows in tried
        )

    low, high = 0, sizes.slots
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def accuracy_notes(weights: str) -> Iterator[str]:
    """What activations of 16 bits bring; what types cost in accuracy is measured, not planned."""
    if weights == "w8a16":
        off = ", ".join(f"{far:.3g} in {kind}" for kind, far in LOGIT_DISTANCES.items())
        yield (
            f"logits of SmolLM2 are at most {off} from float32 (docs/accuracy.md); "
            "lpu run --accuracy says it of others"
        )


def why_int8(model: Model, spec: ChipSpec, request: PlanRequest, chips: int) -> str:
    """The note of a plan that took int8 weights by itself: fp16 ones fit less well."""
    reason = "they have no room"
    alone = Sizes(model, spec, CONTEXT_BLOCK, "fp16")
    if (request.batch > 1 or request.context > CONTEXT_BLOCK) and fits_on(
        alone, replace(request, batch=1), chips
    ):
        reason = f"they leave no room for the caches of {request.batch} x {request.context} tokens"
    return f"weights are int8: in fp16 {reason}; --weights fp16 says what would have"
