"""Models for which ops are missing, as dense graphs that can be planned in their place.

The LPU is static: until experts are gathered, planned is the worst case, in which a chip runs every
expert it holds, so that a mixture costs what a dense FFN of all its columns costs. What the graph
leaves out is said in notes, and is never more than a few percent of the weights.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from chip.program import word_columns
from chip.spec import GROQCHIP1, ChipSpec
from cluster.errors import BadValue
from cluster.model.decoder import Decoder
from cluster.model.graph.builder import Builder
from cluster.model.graph.experts import ExpertLinear
from cluster.model.graph.graph import Model, Section
from cluster.model.graph.stand_in import Experts, Residents, StandIn
from cluster.model.graph.values import Dim, Value


def mixture(b: Builder, x: Value, experts: Experts, function: str, hidden: Dim) -> Value:
    """The FFN of a layer that is a mixture: rows go to the experts that its router chooses."""
    ffn = Dim("expert_ffn", experts.ffn)
    choice = b.route(b.linear(x, "router", Dim("experts", experts.count)), experts.chosen)
    gate, up = (b.experts(x, choice, name, ffn) for name in ("w_gate", "w_up"))
    return b.experts(b.gate(gate, up, function), choice, "w_down", hidden)


def clamped_mixture(
    b: Builder, x: Value, experts: Experts, slope: float, limit: float, hidden: Dim
) -> Value:
    """The same with biases everywhere, and a gate that is clamped."""
    ffn = Dim("expert_ffn", experts.ffn)
    scores = b.linear(x, "router", Dim("experts", experts.count), bias=True)
    choice = b.route(scores, experts.chosen)
    gate, up = (b.experts(x, choice, name, ffn, bias=True) for name in ("w_gate", "w_up"))
    return b.experts(b.clamped_gate(gate, up, slope, limit), choice, "w_down", hidden, bias=True)


def spread_experts(model: Model, ep: int) -> Model:
    """The model with the experts of its mixtures over `ep` parts of a group; raises BadValue."""
    if ep == 1:
        return model
    counts = {op.experts for op in _mixed(model)}
    if not counts:
        raise BadValue("--ep", ep, f"{model.name} has no experts that are gathered")
    for count in sorted(counts):
        if count % ep:
            raise BadValue("--ep", ep, f"must divide the {count} experts of {model.name}")

    def change(section: Section) -> Section:
        ops = (replace(o, ep=ep) if isinstance(o, ExpertLinear) else o for o in section.ops)
        return replace(section, ops=tuple(ops))

    return model.with_sections(change)


def expert_parts(model: Model) -> int:
    """Parts of a group that the experts of a model are spread over."""
    return max((op.ep or 1 for op in _mixed(model)), default=1)


def is_mixture(model: Model) -> bool:
    """Whether some of its products are with the matrices of experts."""
    return any(True for _ in _mixed(model))


def _mixed(model: Model) -> Iterator[ExpertLinear]:
    ops = (op for section, _ in model.distinct for op in section.ops)
    return (op for op in ops if isinstance(op, ExpertLinear))


def gatherable(experts: Experts, spec: ChipSpec = GROQCHIP1) -> bool:
    """Whether a bank has the words of half an fp16 tile of every expert: they share one region.

    A side has 16 slices twice, between which the pieces of tiles take turns.
    """
    return experts.count * (spec.lanes // word_columns("f16") // 2) <= spec.bank_words


def residents(model: Model, tp: int) -> Residents | None:
    """Where the experts of a mixture lie: ranks have a part of each, if they are gathered."""
    if model.stand_in and model.stand_in.experts:
        return model.stand_in.experts.residents(tp)
    for op in _mixed(model):
        ep = op.ep or 1
        run = min(op.chosen, op.held)
        return Residents(op.experts, op.chosen, op.experts / tp, tp == ep, run, ep)
    return None


def all_experts(d: Decoder, experts: Experts) -> Decoder:
    """Sizes of a layer that runs every expert."""
    return replace(d, ffn=Dim("ffn", experts.columns))


def without(
    model: Model,
    missing: Sequence[str] = (),
    notes: Sequence[str] | None = None,
    more_parameters: int = 0,
    experts: Experts | None = None,
    cached_elements: int | None = None,
) -> Model:
    """The model marked as standing for one with what is `missing`, in words.

    `notes` say how a plan differs where "without" what is missing is not the whole truth.
    """
    notes = [f"without {part}" for part in missing] if notes is None else list(notes)
    missing = list(missing)
    if experts:
        missing.append(f"a mixture of {experts.count} experts")
        share = (experts.chosen * experts.ffn + experts.shared_ffn) / experts.columns
        notes.append(
            f"worst case: all {experts.count} experts of a layer run for every token; "
            f"with experts picked by Gather, {share:.1%} of these FFN cycles would do; "
            "without the router"
        )
    stand_in = StandIn(tuple(missing), tuple(notes), more_parameters, cached_elements, experts)
    return replace(model, stand_in=stand_in)
