"""V30: Cholesky factorisation, blocks of 320 rows dealt to the chips of a node in turn."""

from collections.abc import Iterator

from chip.kernels.cholesky import Elimination, round_rows, solve, update
from chip.kernels.memory import MemoryMap
from chip.kernels.transfer import Moved, transfer
from chip.schedule import Rows, Schedule
from chip.spec import EAST, GROQCHIP1, WEST, ChipSpec
from cluster.compiler.wires import Wires
from cluster.validate.row import Row, missed, within
from cluster.validate.tasks import Task, critical_path, schedule
from topology import parse

SIDES = (EAST, WEST)
SOURCE = "Abts et al., ISCA 2022"
SPEED_UPS = {2: 1.2, 4: 1.4, 8: 1.5}
TFLOPS = {4: 14.9, 8: 22.4}


def cholesky_rows() -> Iterator[Row]:
    """Speed-up over one chip, and FLOP/s, of the largest matrix that one chip holds."""
    spec = GROQCHIP1
    count, costs = blocks_that_fit(spec), kernel_cycles(spec)
    order = count * spec.lanes
    graphs = {chips: tasks(count, chips, costs) for chips in (1, 2, 4, 8)}
    ends = {chips: schedule(graph) for chips, graph in graphs.items()}
    for chips, published in SPEED_UPS.items():
        where = f"{order:,} rows, dealt in blocks of {spec.lanes}, {chips} chips of a node"
        found = within("V30", f"Cholesky on {chips} chips, speed-up", published,
                       ends[1] / ends[chips], 15, SOURCE, where)  # fmt: skip
        yield missed(found, _reason(graphs[chips], ends[chips]))
        if chips in TFLOPS:
            rate = order**3 / 3 / (ends[chips] / spec.clock_hz)
            what = f"Cholesky on {chips} chips, FLOP/s"
            row = within("V30", what, 1e12 * TFLOPS[chips], rate, 15, SOURCE, where)
            note = f"the published size is not known; ours has {order:,} rows"
            yield missed(row, note)


def _reason(graph: list[Task], end: int) -> str:
    parts = ", ".join(f"{kind} {cycles:,}" for kind, cycles in critical_path(graph).items())
    return f"of {end:,} cycles, on the critical path: {parts}"


def blocks_that_fit(spec: ChipSpec) -> int:
    """Blocks of rows of the largest matrix in a chip: the lower half of A in fp32, twice, as it
    alternates between banks, and a column of blocks of L in fp16, as rows and as columns."""
    block, count = 4 * spec.lanes**2, 1
    while count * (count + 1) * block + count * block < spec.sram_bytes - 4 * block:
        count += 1
    return count - 1


def kernel_cycles(spec: ChipSpec) -> dict[str, int]:
    """Cycles of the schedule of each kernel, and of 320 fp16 rows to another chip of a node."""
    memory, plan = MemoryMap(spec), Schedule(spec)
    elimination = Elimination(memory, plan)
    elimination.place()
    found = {"eliminate": plan.end_cycle}
    half = memory.rows("block", (EAST, 2, 0), spec.lanes, "f16")
    rows = memory.rows("rows", (EAST, 2, 1), spec.lanes, "f16")
    columns = memory.columns("columns", EAST, spec.lanes)
    wide = [memory.rows(f"a{bank}", (WEST, 2, bank), spec.lanes, "f32") for bank in (0, 1)]
    plan = Schedule(spec)
    round_rows(plan, Rows(wide[0]), half)
    solve(plan, EAST, Rows(half), elimination.inverse[EAST], rows, columns)
    found["solve"] = plan.end_cycle
    plan = Schedule(spec)
    update(plan, EAST, rows, columns, (wide[0], wide[1]))
    found["update"] = plan.end_cycle
    plan = Schedule(spec)
    routes = Wires(parse("node")).group((0, 1)).routes
    transfer(plan, routes[0, 1], Moved(Rows(rows), Rows(half), spec.lanes))
    return found | {"send": plan.end_cycle}


def tasks(count: int, chips: int, costs: dict[str, int]) -> list[Task]:
    """All tasks of `count` blocks of rows on `chips`; block row i is on chip i mod chips.

    An elimination takes both sides of a chip, a product one; a transfer takes its cable alone.
    """
    found: list[Task] = []
    ready: dict[tuple[int, int], Task] = {}  # the last update of a block

    def add(kind: str, units: tuple[object, ...], after: tuple[Task, ...], *priority: int) -> Task:
        found.append(Task(kind, costs[kind], units, after, priority))
        return found[-1]

    def to_all(what: Task, home: int, k: int) -> dict[int, Task]:
        """What must be over before each chip has what a task made."""
        sent = {
            c: add("send", (("cable", home, c),), (what,), k, 0) for c in range(chips) if c != home
        }
        return {home: what} | sent

    for k in range(count):
        home = k % chips
        both = tuple(("side", home, side) for side in SIDES)
        pivot = add("eliminate", both, (ready[k, k],) if k else (), k, 0)
        inverse, panel = to_all(pivot, home, k), {}
        for i in range(k + 1, count):
            chip = i % chips
            before = (inverse[chip], *((ready[i, k],) if k else ()))
            solved = add("solve", (("side", chip, SIDES[i // chips % 2]),), before, k, 1, i)
            panel[i] = to_all(solved, chip, k)
        for i in range(k + 1, count):
            chip = i % chips
            for j in range(k + 1, i + 1):
                before = (panel[i][chip], panel[j][chip], *((ready[i, j],) if k else ()))
                side = ("side", chip, SIDES[(i // chips + j) % 2])
                urgent = (j, 0, i) if j == k + 1 else (count, k, j)
                ready[i, j] = add("update", (side,), before, *urgent)
    return found
