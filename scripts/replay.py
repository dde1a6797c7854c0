"""Run a recording (`lpu run --record DIR`) on bare chips and compare every logit and the digest.

python scripts/replay.py DIR

Only the package `chip` is imported: no model, no scheduler, no topology, no cluster.
"""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

if importlib.util.find_spec("chip") is None:  # not installed: the checkout this file lies in
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chip.errors import ChipError
from chip.recording import replay


def main(folder: Path) -> int:
    """Replay and print one JSON object; 0 if all is equal, 1 if not, 2 if unreadable."""
    launches, logits, different, digest = 0, 0, [], ""
    try:
        for done in replay(folder):
            launches += 1
            logits += sum(v.size for named in done.outputs.values() for v in named.values())
            digest = done.digest
            if not done.equal:
                different.append(f"launch {launches} {done.name}")
    except (ChipError, OSError) as error:
        print(f"replay: {error}", file=sys.stderr)
        return 2
    found = {"launches": launches, "logits": logits, "digest": digest, "different": different}
    print(json.dumps(found))
    return 1 if different else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="what --record has written")
    sys.exit(main(parser.parse_args().folder))
