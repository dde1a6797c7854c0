"""What a rank of a tensor-parallel group has room for."""

from collections.abc import Iterable
from dataclasses import dataclass

from chip.kernels.attention import Heads
from cluster.compiler.shard import Sharded
from cluster.model.graph.latent_attention import ATTENTIONS
from cluster.model.graph.values import SHARDED, Dim


@dataclass(frozen=True)
class Rank:
    """Sizes of a rank's share: its heads, and elements of other dimensions that are cut."""

    heads: Heads | None
    cut: tuple[tuple[Dim, int], ...] = ()

    def size(self, dim: Dim) -> int:
        """Elements of a dimension that it has room for."""
        if self.heads is not None and dim.name == "heads":
            return len(self.heads.kv_of)
        if self.heads is not None and dim.name == "kv_heads":
            return self.heads.kv_heads
        return dict(self.cut).get(dim, dim.size)


def ranks_of(sections: Iterable[Sharded], lanes: int) -> tuple[Rank, ...]:
    """What each rank has room for, alike in all sections but for how heads are grouped."""
    cut: dict[Dim, int] = {}
    heads: dict[int, Heads] = {}
    tp = 1
    for sharded in sections:
        tp = sharded.shares.tp
        for op in sharded.section.ops:
            for dim in op.out.dims:
                if dim.name in SHARDED and dim.name not in ("heads", "kv_heads"):
                    cut[dim] = max(len(sharded.shares.part(dim, r)) for r in range(tp))
            if isinstance(op, ATTENTIONS):
                queries, keys = op.q.dims[0], op.k.dims[0]
                count = max(len(sharded.shares.part(keys, rank)) for rank in range(tp))
                for rank in range(tp):
                    kv_of = sharded.shares.kv_of(queries, keys, rank)
                    heads[rank] = Heads(kv_of, count, min(lanes, op.q.dims[1].size), lanes)
    return tuple(Rank(heads.get(rank), tuple(cut.items())) for rank in range(tp))
