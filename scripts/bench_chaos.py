"""Random programs for minutes: linker and naive interpreter must agree, to the bit and the cycle.

    python scripts/bench.py chaos [--minutes 10] [--seed N] [--json]

Each round draws programs by hypothesis, runs them through both, then mutations of them and damaged
bytes: these are rejected with one error, or done as the naive interpreter does them. The first
disagreement ends the run with the seed that gave it and exit code 1.
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
ROUND = 50  # examples between two looks at the clock


def run(arguments: Sequence[str]) -> int:
    """Run until the time is over; print what was seen."""
    parser = argparse.ArgumentParser(prog="bench.py chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if find_spec("hypothesis") is None:
        print("bench.py chaos needs hypothesis: pip install -e '.[test]'", file=sys.stderr)
        return 2
    found: dict[str, Counter[str]] = {
        k: Counter() for k in ("programs", "mutations", "bytes", "ops")
    }
    start, number = time.perf_counter(), options.seed
    failure = ""
    while not failure and time.perf_counter() - start < 60 * options.minutes:
        failure = _round(number, found)
        number += 1
    body = {
        "minutes": round((time.perf_counter() - start) / 60, 2),
        "rounds": number - options.seed,
    }
    body |= {name: dict(counts.most_common()) for name, counts in found.items()}
    body["failure"] = failure or None
    print(json.dumps(body) if options.json else _table(body))
    return 1 if failure else 0


def _round(number: int, found: dict[str, Counter[str]]) -> str:
    """Some examples that hypothesis draws from one seed; what disagreed, if any did."""
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st

    from chip.wire import pack
    from tests.chip.chaos import Chaos
    from tests.chip.outcomes import damaged, mutated, outcome, small_numbers, survives

    image, last = small_numbers(), 0

    @seed(number)
    @settings(
        max_examples=ROUND, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.integers(0, 2**62))
    def examples(drawn: int) -> None:
        nonlocal last
        last, random = drawn, Random(drawn)
        what = Chaos(drawn).program()
        found["programs"][outcome(what, image)] += 1
        found["ops"].update(one.op for _, _, one in what.instructions())
        found["mutations"][outcome(mutated(what, random), image)] += 1
        found["bytes"][survives(damaged(pack(what), random))] += 1

    try:
        examples()
    except Exception as error:  # any of them is the find of this run
        return f"Chaos({last}): {type(error).__name__}: {error}"
    return ""


def _table(body: dict[str, object]) -> str:
    return "\n".join(f"{name:10} {value}" for name, value in body.items())


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
