"""The rule for queues with powered-down lanes (Config): nobody reads what was not driven.

Values are computed for all lanes; what lies beyond the powered ones is nobody's. That it is neither
written, sent nor summed is up to `interpret`.
"""

import numpy as np

from chip.errors import LanesOff
from chip.isa.mxm import ADD
from chip.linker.streams import Feeds
from chip.linker.timeline import Issue
from chip.linker.weights import Tiles
from chip.spec import ChipSpec


def check_lanes(issues: list[Issue], feeds: Feeds, spec: ChipSpec) -> None:
    """No instruction reads lanes that its producer had powered down; raises LanesOff."""
    if all(issue.lanes == spec.lanes for issue in issues):
        return
    for (number, _), parts in feeds.items():
        for producer in {producer for feed in parts for producer in feed.owners}:
            _check_pair(issues[producer], issues[number])
    summed: dict[tuple[int, int], Issue] = {}
    for issue in issues:
        if issue.op.role == "sums":
            for slot in issue.steps.tolist():
                if issue.arg("mode") == ADD and (issue.unit, slot) in summed:
                    _check_pair(summed[issue.unit, slot], issue)
                summed[issue.unit, slot] = issue


def check_tiles(issues: list[Issue], tiles: dict[int, Tiles], spec: ChipSpec) -> None:
    """No activation meets weights of lanes that were powered down when they were loaded."""
    if all(issue.lanes == spec.lanes for issue in issues):
        return
    for number, met in tiles.items():
        for owner in np.unique(met.loads[:, :, 0]):
            _check_pair(issues[int(owner)], issues[number])


def _check_pair(producer: Issue, consumer: Issue) -> None:
    if producer.lanes < consumer.lanes:
        detail = f"reads {consumer.lanes} lanes, {producer.queue} has powered {producer.lanes}"
        raise consumer.hazard(LanesOff, detail, None, (producer,))
