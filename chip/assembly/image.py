"""What an assembled file holds: programs, cables, data to write first and results to check."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from fractions import Fraction
from io import BytesIO

import numpy as np

from chip.arrays import Array
from chip.board import Cable
from chip.errors import ProgramError
from chip.program import Program, Region
from chip.wire import Plain, header_of, pack, pack_value, unpack, unpack_values

MAGIC, VERSION = "lpu-image", 1


@dataclass(frozen=True)
class Network:
    """A topology SPEC with its options; empty where cables are listed one by one, or none."""

    topology: str = ""
    profile: str = ""
    links: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fill:
    """Values [vectors, lanes] that a region of a chip holds before the launch."""

    chip: int
    region: Region
    values: Array


@dataclass(frozen=True)
class Check:
    """Values [vectors, lanes] that output `name` of a chip must hold, each within a tolerance."""

    chip: int
    name: str
    values: Array
    within: float = 0.0


@dataclass(frozen=True)
class Image:
    """Everything needed to execute programs; `lines` say where an instruction was written."""

    programs: dict[int, Program]
    network: Network = Network()
    cables: tuple[Cable, ...] = ()
    fills: tuple[Fill, ...] = ()
    checks: tuple[Check, ...] = ()
    lines: Mapping[tuple[int, str, int], str] = field(default_factory=dict, compare=False)

    @property
    def spec(self) -> str:
        """The chip of all programs."""
        return next(iter(self.programs.values())).spec


def pack_image(image: Image) -> bytes:
    """Bytes of an image."""
    body = {
        "magic": MAGIC,
        "version": VERSION,
        "network": list(astuple(image.network)),
        "cables": [_cable(cable) for cable in image.cables],
        "programs": [pack(program) for _, program in sorted(image.programs.items())],
        "fills": [[f.chip, list(astuple(f.region)), f.values] for f in image.fills],
        "checks": [[c.chip, c.name, c.values, c.within] for c in image.checks],
    }
    return pack_value(body)


def _cable(cable: Cable) -> list[int]:
    head, rest = astuple(cable)[:5], astuple(cable)[6:]
    return [*head, *cable.cycles_per_vector.as_integer_ratio(), *rest]


def unpack_image(data: bytes) -> Image:
    """An image, or one bare program, from its bytes; raises ProgramError."""
    try:
        header_of(data)
    except ProgramError:
        pass
    else:
        program = unpack(data)
        return Image({program.chip: program})
    values = list(unpack_values(BytesIO(data)))
    if len(values) != 1 or not isinstance(values[0], dict) or values[0].get("magic") != MAGIC:
        raise ProgramError("neither an assembled file nor an LPU program, or one cut short")
    if values[0].get("version") != VERSION:
        raise ProgramError(f"version {values[0].get('version')!r}, this reads {VERSION}")
    try:
        return _image(values[0])
    except ProgramError:
        raise
    except Exception as error:  # whatever corrupt bytes can do to a decoder is one error to us
        raise ProgramError(f"corrupt: {type(error).__name__}: {error}") from None


def _image(body: dict[str, Plain]) -> Image:
    topology, profile, links = body["network"]
    programs = [unpack(data) for data in body["programs"]]
    image = Image(
        programs={program.chip: program for program in programs},
        network=Network(str(topology), str(profile), tuple(map(str, links))),
        cables=tuple(
            Cable(a, i, b, j, n, Fraction(p, q), *more)
            for a, i, b, j, n, p, q, *more in body["cables"]
        ),
        fills=tuple(Fill(c, Region(*region), _array(v)) for c, region, v in body["fills"]),
        checks=tuple(Check(c, n, _array(v), float(w)) for c, n, v, w in body["checks"]),
    )
    if len({program.spec for program in programs}) != 1 or len(image.programs) != len(programs):
        raise ProgramError("programs of one chip each, for one kind of chip, are expected")
    return image


def _array(values: object) -> Array:
    if not isinstance(values, np.ndarray) or values.ndim != 2:
        raise ProgramError("data that is no array of vectors")
    return values
