"""From a model to a running LPU cluster: import, partition, schedule, lower, run, report.

    engine = cluster.load("smollm2", tp=3, pp=2, topology="node")
    report = cluster.plan("llama-2-70b", chips=576, topology="dragonfly:576")
    answer = cluster.sweep("scripts/whatif/topology.toml")

These, and what they return, are in `cluster.facade`, which is imported when one is first used.

`chip`, `topology` and `cluster` are one program in three packages. Other distributions also install
a `cluster` or a `topology`; mixing theirs with ours would fail far from the cause, so the first
import checks that all three come from the same folder.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cluster.facade import Answer, Engine, Swept, load, plan, sweep

__all__ = ["Answer", "Engine", "Swept", "load", "plan", "sweep"]
__version__ = "0.1.0"


def _check_origin(names: tuple[str, ...] = ("chip", "topology")) -> None:
    """Raise ImportError unless every package of `names` lies beside this one."""
    ours = Path(__file__).resolve().parent.parent
    for name in names:
        spec = find_spec(name)
        origin = Path(spec.origin).resolve().parent.parent if spec and spec.origin else None
        if origin != ours:
            found = f"it comes from {origin}" if origin else "it is not there"
            raise ImportError(
                f"package '{name}' must lie in {ours}, beside cluster, but {found}; another "
                "distribution of that name may be in the way: use a fresh virtual environment",
                name=name,
            )


_check_origin()


def __getattr__(name: str) -> Any:
    """Import the façade when something of it is used: it takes a second, the command line none."""
    if name in __all__:
        from cluster import facade

        return getattr(facade, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
