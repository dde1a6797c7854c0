"""A model as the dense decoder that the kernels can run in its place, for planning.

The LPU is static: which experts a token takes is not known when programs are made. Planned is the
worst case, in which a chip runs every expert it holds, so that a mixture costs what a dense FFN of
all its columns costs. What the stand-in leaves out is said in notes, and is never more than a few
percent of the weights.
"""

from dataclasses import dataclass, replace

from cluster.errors import ModelError
from cluster.model.spec import Experts, ModelSpec


@dataclass(frozen=True)
class Residents:
    """Experts of a layer that rest on each rank of a tensor-parallel group; `whole` if uncut."""

    count: int
    chosen: int
    per_rank: float
    whole: bool


def residents(experts: Experts, tp: int) -> Residents:
    """Where experts rest when FFN columns are shared out evenly, as all kernels do.

    If tp divides their number each rank has whole experts, and its part of what is shared by all.
    The all-reduce of the FFN adds what the experts of all ranks give.
    """
    whole = experts.count % tp == 0 and experts.shared_ffn % tp == 0
    return Residents(experts.count, experts.chosen, experts.count / tp, whole)


def planned_as(model: ModelSpec) -> tuple[ModelSpec, tuple[str, ...]]:
    """(a model that kernels run, notes on how it differs); raises ModelError for encoders."""
    notes = []
    if any("encoder" in part for part in model.unsupported):
        problem = "is an encoder, for which there is no token-by-token plan"
        raise ModelError(model.name, problem, "lpu embed runs encoders")
    for part in model.unsupported:
        notes.append(f"without {part}")
    if model.qk_norm:
        notes.append("without the norms of queries and keys")
    ffn = model.ffn
    if model.experts:
        experts = model.experts
        ffn = experts.count * experts.ffn + experts.shared_ffn
        share = (experts.chosen * experts.ffn + experts.shared_ffn) / ffn
        notes.append(
            f"worst case: all {experts.count} experts of every layer run for every token; "
            f"with experts picked by Gather, {share:.1%} of these FFN cycles would do; "
            "without the router"
        )
    if model.latent:
        notes.append("latent attention as the multi-head attention it expands to")
    return replace(model, ffn=ffn, qk_norm=False, experts=None, latent=None, unsupported=()), tuple(
        notes
    )
