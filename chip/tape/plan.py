"""What a tape does when, and how long its values live."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from chip.isa import NUMPY_TYPES
from chip.linker.fragment import Fragment, Step
from chip.linker.node_ops import Columns, Gather, GatheredColumns, NodeOp, Products, Read, Store
from chip.sram import GROUP
from chip.tape.order import Kind, units
from chip.tape.tasks import Task, by_rows, tasks

Part = tuple[Kind, list[int], list[Task]]  # nodes of a unit, and those done by rows as tasks


@dataclass(frozen=True)
class Plan:
    """The parts of each group, which are numbered through all groups.

    `ends` are the values that nobody needs after a part, `within` those that only one part of
    rows needs, `in_place` what is read where it rests, as nobody writes there before its last use,
    `imports` interpreted nodes that feed a tape.
    """

    groups: list[list[Part]]
    ends: dict[int, list[int]]
    within: set[int]
    in_place: set[int]
    imports: set[int]

    @classmethod
    def of(cls, fragment: Fragment, taped: Sequence[bool]) -> "Plan":
        """The plan of a fragment, of whose nodes some are taped."""
        nodes, before = fragment.steps, [node.before for node in fragment.steps]
        kinds = [
            _kind(node.op) if can else Kind.STEP for node, can in zip(nodes, taped, strict=True)
        ]
        groups, at, group_of = list[list[Part]](), dict[int, int](), dict[int, int]()
        count = 0
        for number, group in enumerate(fragment.groups):
            groups.append([])
            for kind, unit in units(group, before, kinds):
                for some in tasks(unit, nodes) if kind == Kind.ROWS else [[]]:
                    mine = unit if not some else list({node for one in some for node, _ in one})
                    groups[-1].append((kind, mine, some))
                    at |= dict.fromkeys(mine, count)
                    count += 1
            group_of |= dict.fromkeys(group, number)
        users, writers = defaultdict[int, list[int]](list), defaultdict[int, list[int]](list)
        for node in at:
            for need in nodes[node].before:
                (users if need in nodes[node].needs else writers)[need].append(node)
        last = {n: max([at[n], *(at[user] for user in users[n])]) for n in at}
        ends = defaultdict[int, list[int]](list)
        for node, part in last.items():
            ends[part].append(node)

        def stays(n: int) -> bool:
            """Whether it is read where it rests."""
            mine = users[n]
            near = all(taped[u] and group_of[u] == group_of[n] for u in mine)
            fits = all(_reads_in_place(nodes[n].op, nodes[u]) for u in mine)
            return taped[n] and near and fits and all(last[n] < at[w] for w in writers[n])

        resting = (Columns, Read)
        return cls(
            groups,
            ends,
            {n for n in at if last[n] == at[n] and kinds[n] == Kind.ROWS},
            {n for n in at if isinstance(nodes[n].op, resting) and stays(n)},
            {need for n in at if taped[n] for need in nodes[n].needs if not taped[need]},
        )


def _kind(op: NodeOp) -> Kind:
    if by_rows(op):
        return Kind.ROWS
    return Kind.PRODUCTS if isinstance(op, Products) else Kind.RECORD


def _reads_in_place(op: NodeOp, user: Step) -> bool:
    """Whether a user can read words where they rest: not if it may write them meanwhile."""
    if isinstance(op, Columns):
        return isinstance(user.op, Products)
    if not isinstance(op, Read) or NUMPY_TYPES[op.element].itemsize < GROUP:
        return False  # elements of fewer bytes do not lie side by side
    if isinstance(user.op, Store):
        return user.op.index // GROUP != op.index // GROUP
    return not isinstance(user.op, Gather | GatheredColumns)
