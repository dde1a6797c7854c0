"""What joins LPUs and GPUs: a network or a bus, one link for each GPU."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from cluster.errors import BadValue

OPTION = "--between"
MOST = 1e15  # bytes per second, and seconds: beyond what is a link


@dataclass(frozen=True)
class Between:
    """A link one way, `links` of them side by side (0: one for each GPU)."""

    name: str
    bytes_per_s: float
    latency_s: float
    source: str
    links: int = 0

    def rate(self, gpus: int) -> float:
        """Bytes per second of all links to so many GPUs, one way."""
        return self.bytes_per_s * (self.links or gpus)


NAMED: Mapping[str, Between] = MappingProxyType(
    {
        "ethernet-400g": Between(
            "ethernet-400g", 50e9, 3e-6,
            "400 Gb/s line rate; 3 us through two NICs and a switch with RDMA: assumption",
        ),
        "pcie5x16": Between(
            "pcie5x16", 63e9, 1e-6,
            "PCI Express 5.0, 32 GT/s x 16 lanes, 128b/130b; 1 us through a switch: assumption",
        ),
    }
)  # fmt: skip
NUMBERS = tuple(one.name for one in fields(Between) if one.name not in ("name", "source"))


def between(texts: Sequence[str]) -> Between:
    """The link of --between: a name, fields of it, or both; raises BadValue."""
    found, named = NAMED["ethernet-400g"], False
    for text in texts:
        field, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            if field not in NAMED:
                known = ", ".join(NAMED)
                raise BadValue(OPTION, text, f"must be one of {known}, or FIELD=VALUE")
            if named:
                raise BadValue(OPTION, text, "is a second name")
            named = True
            changed: dict[str, Any] = {name: getattr(found, name) for name in _changed(found)}
            found = replace(NAMED[field], **changed)
            continue
        number: dict[str, Any] = {field: _number(field, value)}
        found = replace(found, **number, name=f"{found.name}, {text}")
    return found


def _changed(found: Between) -> list[str]:
    before = NAMED["ethernet-400g"]
    return [name for name in NUMBERS if getattr(found, name) != getattr(before, name)]


def _number(field: str, value: str) -> float | int:
    if field not in NUMBERS:
        known = ", ".join(NUMBERS)
        raise BadValue(OPTION, f"{field}={value}", f"names no field; there are {known}")
    try:
        number: float = int(value) if field == "links" else float(value)
    except ValueError:
        number = -1
    if not 0 < number < MOST:
        raise BadValue(OPTION, f"{field}={value}", f"must be a number above 0 and below {MOST:g}")
    return number
