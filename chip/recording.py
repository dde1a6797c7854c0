"""A run on disk: programs, cables, constants and the host inputs and results of every launch.

With it the run can be repeated by chips alone: `replay` needs nothing but this package.

A folder of three msgpack files. `board` holds one map: the chip spec, the cables, the programs.
`constants` holds [chip, region, array] after one another; `launches` a map per launch, and one for
each name of a launch whose chips run programs of several others, before the first of that name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from fractions import Fraction
from pathlib import Path

from chip.board import Cable, wire
from chip.core import Array
from chip.digest import RunDigest
from chip.errors import ProgramError
from chip.group import ChipGroup, batches
from chip.own_spec import chip_of
from chip.program import Region
from chip.wire import Plain, pack_value, unpack_values

VERSION = 3
READABLE = (2, VERSION)  # 2 had no launches that are joined of others
Vectors = Mapping[int, Mapping[str, Array]]  # chip -> name -> vectors


@dataclass(frozen=True)
class Board:
    """What does not change from launch to launch; `launches` holds programs by name and chip."""

    spec: str
    cables: tuple[Cable, ...]
    launches: dict[str, dict[int, bytes]]

    @property
    def chips(self) -> list[int]:
        return sorted({chip for programs in self.launches.values() for chip in programs})

    def digest(self) -> RunDigest:
        """The digest of a run that has not begun."""
        return RunDigest(programs for _, programs in sorted(self.launches.items()))


@dataclass(frozen=True)
class Replayed:
    """One launch, run again: what came out, what was recorded, and the digest so far."""

    name: str
    outputs: Vectors
    recorded: Vectors
    end_cycle: int
    recorded_end_cycle: int
    digest: str
    recorded_digest: str

    @property
    def equal(self) -> bool:
        """Whether every output, the cycles and the digest are as recorded, to the bit."""
        return (
            _as_bytes(self.outputs) == _as_bytes(self.recorded)
            and self.end_cycle == self.recorded_end_cycle
            and self.digest == self.recorded_digest
        )


class Writer:
    """Writes a recording into an existing folder."""

    def __init__(self, folder: Path, board: Board) -> None:
        cables = [_fields(cable) for cable in board.cables]
        body = {
            "version": VERSION,
            "spec": board.spec,
            "cables": cables,
            "launches": board.launches,
        }
        (folder / "board.msgpack").write_bytes(pack_value(body))
        self._constants = (folder / "constants.msgpack").open("wb")
        self._launches = (folder / "launches.msgpack").open("wb")

    def constant(self, chip: int, region: Region, values: Array) -> None:
        """Add what rests in a chip's SRAM before the first launch."""
        self._constants.write(pack_value([chip, list(astuple(region)), values]))

    def join(self, name: str, parts: Mapping[int, str]) -> None:
        """Add a launch in which each chip runs the program of another one."""
        self._launches.write(pack_value({"name": name, "parts": dict(parts)}))

    def launch(
        self, name: str, inputs: Vectors, outputs: Vectors, end_cycle: int, digest: str
    ) -> None:
        """Add a launch."""
        entry = {"name": name, "inputs": inputs, "outputs": outputs}
        self._launches.write(pack_value(entry | {"end_cycle": end_cycle, "digest": digest}))

    def close(self) -> None:
        """Close the files."""
        self._constants.close()
        self._launches.close()


def read_board(folder: Path) -> Board:
    """The fixed part of a recording; raises ProgramError."""
    with (folder / "board.msgpack").open("rb") as file:
        bodies = list(unpack_values(file))
    if (
        len(bodies) != 1
        or not isinstance(bodies[0], dict)
        or bodies[0].get("version") not in READABLE
    ):
        raise ProgramError(f"not a recording of version {VERSION}", str(folder))
    (body,) = bodies
    chip_of(body["spec"])
    cables = [Cable(a, i, b, j, n, Fraction(p, q), h) for a, i, b, j, n, p, q, h in body["cables"]]
    return Board(body["spec"], tuple(cables), body["launches"])


def replay(folder: Path) -> Iterator[Replayed]:
    """Run every launch of a recording again, in order."""
    board = read_board(folder)
    group = ChipGroup(board.chips, chip_of(board.spec))
    ends, known = {}, {}
    for name, programs in board.launches.items():
        known[name] = {chip: group.load(name, chip, data) for chip, data in programs.items()}
        wiring = wire(known[name], board.cables)
        group.prepare(name, batches(wiring, dict.fromkeys(board.chips, 0)))
        ends[name] = wiring.end_cycle
    for chip, region, values in _values(folder / "constants.msgpack"):
        group.write([(chip, Region(*region), values)])
    digest = board.digest()
    for entry in _values(folder / "launches.msgpack"):
        name = entry["name"]
        if "parts" in entry:
            parts = entry["parts"]
            wiring = wire({chip: known[part][chip] for chip, part in parts.items()}, board.cables)
            group.join(name, parts, batches(wiring, dict.fromkeys(parts, 0)))
            ends[name] = wiring.end_cycle
            continue
        group.begin(name, entry["inputs"])
        group.run(name, 0)
        finished = group.finish(name)
        digest.fold(finished.outputs, finished.digests, ends[name])
        yield Replayed(
            name,
            finished.outputs,
            entry["outputs"],
            ends[name],
            entry["end_cycle"],
            digest.hexdigest(),
            entry["digest"],
        )


def _fields(cable: Cable) -> list[int]:
    ratio = cable.cycles_per_vector.as_integer_ratio()
    return [*astuple(cable)[:5], *ratio, cable.hac_latency_cycles]


def _values(path: Path) -> Iterator[Plain]:
    with path.open("rb") as file:
        yield from unpack_values(file)


def _as_bytes(vectors: Vectors) -> dict[int, dict[str, bytes]]:
    return {
        chip: {key: values.tobytes() for key, values in named.items()}
        for chip, named in vectors.items()
    }
