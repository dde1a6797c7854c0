"""Chains that other members do as well: written once, and placed for each of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from chip.schedule.chain import Chain
from chip.schedule.flows import Access, Hold, Need, Piece

Ports = Mapping[tuple[int, str], int]  # of a member and a family of queues of ports


def elsewhere(chain: Chain, members: Sequence[int], ports: Ports) -> Chain:
    """A finished chain of members 0, 1, .. for those of these numbers, and over these ports.

    `ports` are by the number before; each must be on the side of the one in whose place it comes.
    """
    pieces = [
        Piece(members[p.member], p.family, ports.get((p.member, p.family), p.unit), p.unit_need,
              p.cycles, p.op, p.args, p.needs, p.names, p.loops, p.spread, p.apart)
        for p in chain.pieces
    ]  # fmt: skip
    needs = [
        Need(members[n.member], n.kind, n.side, n.width, n.low, n.high, n.halves)
        for n in chain.needs
    ]
    fixed = {
        Hold(members[h.member], h.family, ports.get((h.member, h.family), h.unit), *h[3:]): taken
        for h, taken in chain.fixed.items()
    }
    spans = {members[member]: extent for member, extent in chain.member_spans.items()}
    accesses = [
        Access(members[a.member], a.rows, a.loops, a.early, a.late, a.writes, a.issues,
               a.at_any_time)
        for a in chain.accesses
    ]  # fmt: skip
    return replace(
        chain, member=members[chain.member], pieces=pieces, needs=needs, fixed=fixed,
        member_spans=spans, accesses=accesses,
    )  # fmt: skip
