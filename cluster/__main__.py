"""`python -m cluster` is `lpu`."""

import sys

try:
    from cluster.cli import main
except KeyboardInterrupt:  # Ctrl-C while modules load
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main())
