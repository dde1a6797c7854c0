"""New rows of a KV cache, which go to words that are data."""

from chip.kernels.work import Work
from chip.program import COLUMN_PAIRS, WEIGHT_SLICES
from chip.schedule import Buffer, Loops, Rows, run
from chip.schedule.indirect import scatter


def map_rows(work: Work) -> tuple[int, int]:
    """Rows of address maps of each slot of this launch, and all of the longest."""
    most = max(work.most_rows, work.most_slots * COLUMN_PAIRS)
    return max(work.rows // work.slots, COLUMN_PAIRS), most


def append(work: Work, side: int, source: Rows, maps: Rows, count: int, cache: Buffer) -> None:
    """Scatter fp16 rows into a cache of columns; token t belongs to slice pair t % 8.

    A run of tokens that follow each other is written as it comes. A single token is sent eight
    times, once for each pair, and the address maps send all but one of them to a spare word.
    """
    spec, region = work.spec, cache.region
    chain, loops = work.chain("attention: append to cache"), run(count)
    nearest = spec.slice_position(region.index)
    data = chain.arrive(source, nearest, 0, loops)
    lanes = chain.arrive(maps, nearest, 0, loops)
    assert data.need is not None and lanes.need is not None and data.direction == side
    part: Loops = ((1, count), (count // COLUMN_PAIRS, COLUMN_PAIRS))
    spots = map(spec.slice_position, range(region.index, region.index + WEIGHT_SLICES))
    issues = [abs(spot - nearest) + plane // 2 for plane, spot in enumerate(spots)]
    scatter(chain, cache, issues, part, lanes, data)
    work.plan.place(chain)
