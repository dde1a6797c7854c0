"""Links between chips, and named profiles of them with the published number behind each.

A link carries vectors. Vector k of a run departs at start + ceil(k * cycles_per_vector) and can be
used on the other chip `latency_cycles` after it departs, its own transfer included. There is no
back-pressure and no queue: two vectors closer together than the rate are an error of the schedule.

Published latencies are of hops from SRAM to SRAM: `endpoint_cycles` of them are what the two chips
do. A timetable, which knows no chips, counts them in; in programs, where they are instructions with
delays of their own, a cable takes the rest, `wire_cycles`, so that nothing counts twice.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType

from topology.errors import BadLink

# A SRAM byte count is a chip fact, kept here so that a topology can state its memory on its own:
# 88 slices x 20 tiles x 8,192 words x 16 B = 220 MiB (Abts et al., ISCA 2020, section on MEM).
SRAM_BYTES_V1 = 88 * 20 * 8192 * 16
# Read, send, receive and write of a hop: 300 ns per hop (SHIP) less the 217 cycles from one counter
# to the other of a cable (ISCA'22, Table 2). ASSUMPTION: as many in the figures of other profiles.
ENDPOINT_CYCLES = 53
# What no hardware comes near, and 64-bit integers hold the products of.
_MOST = 10**9
_MOST_OF_LINK = {
    "bytes_per_vector_wire": 1 << 20, "payload_bytes": 1 << 20, "latency_cycles": _MOST,
    "count": 1024,
}  # fmt: skip
_MOST_OF_PROFILE = {
    "clock_hz": 10**12, "ports_per_chip": 1 << 16, "links_per_chip": 1 << 16, "sram_bytes": 1 << 50,
}  # fmt: skip


def _rational(value: object) -> Fraction:
    """Return a positive Fraction from an int, a Fraction, a string `p/q` or a pair (p, q)."""
    try:
        parts = value if isinstance(value, tuple | list) else (value,)
        if any(isinstance(part, str) and "e" in part.lower() for part in parts):
            raise ValueError("an exponent can stand for any number of digits")
        rate = Fraction(*parts)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        rate = Fraction(0)
    if not (rate > 0 and max(rate.numerator, rate.denominator) <= _MOST):
        rule = f"must be positive, such as 27 or 2952/125, with numbers up to {_MOST:,}"
        raise BadLink("cycles_per_vector", value, rule)
    return rate


def _check_integers(of: object, most: Mapping[str, int], least: int = 1) -> None:
    for field, high in most.items():
        value = getattr(of, field)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= high:
            raise BadLink(field, value, f"must be an integer from {least} to {high:,}")


@dataclass(frozen=True)
class Link:
    """One edge of a topology: `count` equal cables, each of them full duplex."""

    kind: str = "cable"
    bytes_per_vector_wire: int = 328
    payload_bytes: int = 320
    cycles_per_vector: Fraction = Fraction(27)
    latency_cycles: int = 217 + ENDPOINT_CYCLES
    endpoint_cycles: int = ENDPOINT_CYCLES
    count: int = 1
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cycles_per_vector", _rational(self.cycles_per_vector))
        _check_integers(self, _MOST_OF_LINK)
        _check_integers(self, {"endpoint_cycles": _MOST}, 0)
        if self.bytes_per_vector_wire < self.payload_bytes:
            raise BadLink(
                "bytes_per_vector_wire", self.bytes_per_vector_wire, "must hold the payload"
            )

    @property
    def wire_cycles(self) -> int:
        """What a cable between emulated chips takes, which do the rest themselves; at least 1."""
        return max(1, self.latency_cycles - self.endpoint_cycles)

    @property
    def efficiency(self) -> Fraction:
        """Share of the bytes on the wire that is payload: 320/328 as published."""
        return Fraction(self.payload_bytes, self.bytes_per_vector_wire)

    def transfer_cycles(self, vectors: int) -> int:
        """Return the cycles for which one cable is busy with a run of `vectors`."""
        return -(-vectors * self.cycles_per_vector.numerator // self.cycles_per_vector.denominator)

    def bytes_per_s(self, clock_hz: int) -> float:
        """Return the payload rate of all cables of this link, one direction."""
        return float(self.count * self.payload_bytes * clock_hz / self.cycles_per_vector)


@dataclass(frozen=True)
class Profile:
    """A chip generation as the network sees it: its link, clock, ports and memory."""

    name: str
    link: Link
    clock_hz: int
    # Published packaging (node, rack, dragonfly, QuadFour) may use `ports_per_chip`; free shapes
    # such as `full:16` may use every link the silicon has, `links_per_chip`.
    ports_per_chip: int
    links_per_chip: int
    sram_bytes: int
    source: str

    def __post_init__(self) -> None:
        _check_integers(self, _MOST_OF_PROFILE)

    def at_clock(self, clock_hz: int) -> "Profile":
        """Return the same links, counted in cycles of another clock: seconds do not change."""
        if clock_hz == self.clock_hz:
            return self
        faster = Fraction(clock_hz, self.clock_hz)
        link = dataclasses.replace(
            self.link,
            cycles_per_vector=self.link.cycles_per_vector * faster,
            latency_cycles=math.ceil(self.link.latency_cycles * faster),
            endpoint_cycles=math.ceil(self.link.endpoint_cycles * faster),
        )
        return dataclasses.replace(self, link=link, clock_hz=clock_hz)


# ISCA'22 (Abts et al., "A Software-defined Tensor Streaming Multiprocessor"): 4 lanes x 25 Gb/s =
# 12.5 GB/s one way, 328 B on the wire per 320 B vector; at the product's 900 MHz that is
# 328 * 0.9 / 12.5 = 23.616 cycles. Its collectives count 722 ns per pipelined hop, of which
# about 217 cycles (241 ns) are the measured link (its Table 2), the rest send/receive overhead.
ISCA22 = Profile(
    name="isca22",
    link=Link(
        cycles_per_vector=Fraction(328 * 9, 125),
        latency_cycles=650,
        source="ISCA'22: 100 Gb/s, 328 B packet, 722 ns per pipelined hop at 900 MHz",
    ),
    clock_hz=900_000_000,
    ports_per_chip=11,
    links_per_chip=16,
    sram_bytes=SRAM_BYTES_V1,
    source="Abts et al., ISCA 2022; 11 of 16 links cabled; clock from the product brief",
)

# SHIP (MLSys 2026): 11 ports carry 235 GB/s per chip both ways = 10.68 GB/s per port and direction,
# which is 320 B per 27 cycles at 900 MHz (10.667); 300 ns per hop = 270 cycles = 217 measured
# (ISCA'22 Table 2) + ENDPOINT_CYCLES.
SHIP = Profile(
    name="ship",
    link=Link(
        cycles_per_vector=Fraction(27),
        latency_cycles=217 + ENDPOINT_CYCLES,
        source="SHIP: 10.67 GB/s per port and direction, 300 ns per hop",
    ),
    clock_hz=900_000_000,
    ports_per_chip=11,
    links_per_chip=16,
    sram_bytes=SRAM_BYTES_V1,
    source="SHIP, MLSys 2026; 11 logical ports; clock from the product brief",
)

# LP30: 350 ns SRAM to remote SRAM (Hot Chips 2026), 96 lanes (NVIDIA, 2026-03), cabled as 100G
# lanes (analysts). ASSUMPTIONS, none is published: a 1 GHz clock (so cycles read as ns), the v1
# packet of 328 B, and one 100 Gb/s lane as one port: 328 / 12.5 = 26.24 cycles.
LP30 = Profile(
    name="lp30",
    link=Link(
        cycles_per_vector=Fraction(656, 25),
        latency_cycles=350,
        source="Hot Chips 2026: 350 ns; 100G lane; 1 GHz clock is an assumption",
    ),
    clock_hz=1_000_000_000,
    ports_per_chip=96,
    links_per_chip=96,
    sram_bytes=500_000_000,
    source="NVIDIA 2026-03 (96 lanes, 500 MB), Hot Chips 2026; clock assumed",
)

PROFILES: dict[str, Profile] = {p.name: p for p in (ISCA22, SHIP, LP30)}

Overrides = Mapping[str, object]
NO_OVERRIDES: Overrides = MappingProxyType({})

_LINK_FIELDS = {f.name for f in dataclasses.fields(Link)}
_PROFILE_FIELDS = set(_MOST_OF_PROFILE)


def profile(name: str | Profile = "ship", overrides: Overrides = NO_OVERRIDES) -> Profile:
    """Return the named profile with fields of the profile or of its link replaced.

    Override values may be strings, as from the command line: `{"cycles_per_vector": "27/2"}`.
    Raises BadLink for an unknown profile, field or value.
    """
    if isinstance(name, Profile):
        base = name
    elif name in PROFILES:
        base = PROFILES[name]
    else:
        raise BadLink("profile", name, f"known profiles are {', '.join(PROFILES)}")
    link_changes: dict[str, object] = {}
    profile_changes: dict[str, object] = {}
    for field, value in overrides.items():
        if field in _LINK_FIELDS:
            link_changes[field] = _parsed(field, value)
        elif field in _PROFILE_FIELDS:
            profile_changes[field] = _parsed(field, value)
        else:
            known = ", ".join(sorted(_LINK_FIELDS | _PROFILE_FIELDS))
            raise BadLink(field, value, f"unknown field, known are {known}")
    link = dataclasses.replace(base.link, **link_changes)  # type: ignore[arg-type]
    return dataclasses.replace(base, link=link, **profile_changes)  # type: ignore[arg-type]


def _parsed(field: str, value: object) -> object:
    if field in ("kind", "source"):
        return str(value)
    if field == "cycles_per_vector":
        return _rational(value)
    try:
        return int(value) if isinstance(value, str) else value
    except ValueError:
        raise BadLink(field, value, "must be an integer") from None
