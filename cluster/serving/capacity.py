"""How much traffic a cluster stands, and how few chips stand a traffic, within an SLO."""

from dataclasses import replace

from cluster.errors import BadValue, DoesNotFit
from cluster.serving.build import Policy
from cluster.serving.clockwork import Clockwork
from cluster.serving.metrics import met
from cluster.serving.replay import replay
from cluster.serving.replays import GOOD, Options, Step, prepared
from cluster.serving.traffic import Traffic

CLOSE = 1.01  # rates that are so near each other are one
MOST_DOUBLINGS = 40


def stands(clockwork: Clockwork, traffic: Traffic, policy: Policy, slo: dict[str, float]) -> bool:
    """Whether enough of the requests keep the bounds."""
    return float(met(replay(clockwork, traffic, policy), slo).mean()) >= GOOD


def highest_rate(
    clockwork: Clockwork, traffic: Traffic, policy: Policy, slo: dict[str, float]
) -> float:
    """Requests per second at which GOOD of them keep the bounds, within a hundredth; 0 if none.

    The arrivals are those of the traffic, closer together or further apart.
    """
    if not traffic.rate:
        raise BadValue("--find-rate", "", "the requests arrive all at once; give them a --load")

    def good(rate: float) -> bool:
        return stands(clockwork, traffic.at_rate(rate), policy, slo)

    low, high = 0.0, traffic.rate
    if good(high):
        for _ in range(MOST_DOUBLINGS):
            low, high = high, 2 * high
            if not good(high):
                break
    else:
        for _ in range(MOST_DOUBLINGS):
            high /= 2
            if good(high):
                low, high = high, 2 * high
                break
    if not low:
        return 0.0
    while high > low * CLOSE:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if good(middle) else (low, middle)
    return low


def fewest_chips(
    options: Options, traffic: Traffic, policy: Policy, slo: dict[str, float], step: Step
) -> int:
    """The fewest chips, up to --chips, whose plan keeps the bounds; in steps of a node of eight.

    Each number of chips has the plan that `lpu replay --chips N` takes.
    """

    def good(nodes: int) -> bool:
        smaller = replace(options, chips=8 * nodes, topology=None)
        try:
            cluster = prepared(smaller, traffic, step)
        except (DoesNotFit, BadValue):
            return False
        whole = cluster.rejected == 0
        return whole and stands(cluster.clockwork, cluster.traffic, policy, slo)

    assert options.chips is not None
    high, low = -(-options.chips // 8), 0
    if not good(high):
        raise BadValue("--chips", options.chips, "is too few to keep the bounds of --slo")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle, high)
    return 8 * high
