"""Assembled programs on chips of this process: read, executed, and checked as they ask."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from chip.assembly import Check, Image, assemble, unpack_image
from chip.assembly.image import Network
from chip.board import Cable, wire
from chip.core import Array
from chip.digest import RunDigest
from chip.errors import HazardError, ProgramError
from chip.group import ChipGroup, batches
from chip.own_spec import chip_of, find
from chip.spec import ChipSpec
from chip.wire import pack
from cluster.compiler.choose import LINK_PROFILES, link_overrides
from cluster.compiler.wires import Wires
from cluster.errors import BadValue
from topology import parse

LAUNCH = "exec"
MAX_TEXT_BYTES = 64 << 20


@dataclass(frozen=True)
class Checked:
    """An expectation, how far the result is from it, and where it is farthest."""

    check: Check
    wrong: int
    largest: float
    vector: int
    lane: int

    @property
    def ok(self) -> bool:
        """Whether every element is as expected."""
        return self.wrong == 0


@dataclass(frozen=True)
class Execution:
    """What a launch of an image left: cycles, outputs by chip and name, checks, digest."""

    image: Image
    cycles: int
    memory: dict[int, dict[str, Array]]
    checks: tuple[Checked, ...]
    digest: str


def read_image(path: Path, spec: str | None = None, network: Network | None = None) -> Image:
    """The image in a file, text or assembled; `spec` and `network` replace those of a text.

    Raises OSError, AssemblyError, ProgramError or BadValue.
    """
    size = path.stat().st_size
    if size > MAX_TEXT_BYTES and path.is_file():
        raise BadValue(
            "FILE", path, f"has {size:,} bytes, a program has at most {MAX_TEXT_BYTES:,}"
        )
    data = path.read_bytes()
    chip = find(spec) if spec else None
    if _is_text(data):
        return assemble(data.decode(), str(path), cables_of, chip, network)
    try:
        image = unpack_image(data)
    except ProgramError as error:
        raise ProgramError(error.what, str(path)) from None
    if chip is not None and chip != chip_of(image.spec):
        made = chip_of(image.spec).name
        raise BadValue("--spec", spec, f"{path} is assembled for {made}; assemble its text again")
    if network is not None:
        cables = cables_of(network, chip_of(image.spec), tuple(image.programs))
        image = replace(image, network=network, cables=cables)
    return image


def _is_text(data: bytes) -> bool:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\r\n\f" for character in text)


def cables_of(network: Network, spec: ChipSpec, chips: Iterable[int]) -> tuple[Cable, ...]:
    """Cables of a topology between the chips that are used; raises TopologyError or BadValue."""
    profile = network.profile or LINK_PROFILES.get(spec.name)
    graph = parse(network.topology, profile, link_overrides(network.links), spec.clock_hz)
    used = set(chips)
    if not used <= set(graph):
        count, highest = graph.number_of_nodes(), max(used)
        rule = f"has {count} chips, 0 to {max(graph)}; the program is for chip {highest} too"
        raise BadValue("topology", network.topology, rule)
    return tuple(c for c in Wires(graph).cables() if c.chip in used and c.other_chip in used)


def execute(image: Image) -> Execution:
    """Link and run all programs of an image as one launch; raises ChipError."""
    spec = chip_of(image.spec)
    for chip, program in image.programs.items():
        for name, region in program.outputs.items():
            if region.layout != "rows":
                raise ProgramError(f"output {name} of chip {chip} is not rows, as outputs are read")
    group = ChipGroup(sorted(image.programs), spec)
    programs = {chip: pack(program) for chip, program in sorted(image.programs.items())}
    known = {}
    for chip, data in programs.items():
        try:
            known[chip] = group.load(LAUNCH, chip, data)
        except HazardError as error:
            raise _with_line(image, error, 0) from None
    try:
        wiring = wire(known, image.cables)
    except HazardError as error:  # of a cable: in cycles of the launch
        raise _with_line(image, error, image.programs[error.chip].start_cycle) from None
    group.prepare(LAUNCH, batches(wiring, dict.fromkeys(image.programs, 0)))
    group.write((fill.chip, fill.region, fill.values) for fill in image.fills)
    group.begin(LAUNCH, {})
    group.run(LAUNCH, 0)
    finished = group.finish(LAUNCH)
    digest = RunDigest([programs])
    digest.fold(finished.outputs, finished.digests, wiring.end_cycle)
    checks = tuple(_compared(c, finished.outputs[c.chip][c.name]) for c in image.checks)
    return Execution(image, wiring.end_cycle, finished.outputs, checks, digest.hexdigest())


def _with_line(image: Image, error: HazardError, start: int) -> HazardError:
    """The same error, which also says in which line the instruction was written."""
    here = [c for chip, q, c in image.lines if (chip, q) == (error.chip, error.queue)]
    cycle = max((c for c in here if c <= error.cycle - start), default=None)
    if cycle is None:
        return error
    detail = f"{error.detail} ({image.lines[error.chip, error.queue, cycle]})"
    return type(error)(error.chip, error.queue, error.cycle, error.instruction, detail, error.story)


def _compared(check: Check, found: Array) -> Checked:
    expected = check.values
    plain = np.dtype(f"<u{expected.dtype.itemsize}")
    same = np.ascontiguousarray(found).view(plain) == expected.view(plain)
    with np.errstate(all="ignore"):
        distance = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    distance = np.where(same, 0.0, np.where(np.isnan(distance), np.inf, distance))
    wrong = ~(same | (distance <= check.within))
    vector, lane = np.unravel_index(int(np.argmax(distance + wrong)), distance.shape)
    return Checked(check, int(wrong.sum()), float(distance.max()), int(vector), int(lane))


def report(execution: Execution) -> dict[str, Any]:
    """The JSON object of an execution."""
    image = execution.image
    return {
        "spec": chip_of(image.spec).name,
        "chips": len(image.programs),
        "topology": image.network.topology or None,
        "cycles": execution.cycles,
        "memory": {
            str(chip): {name: _region(image, chip, name, values) for name, values in named.items()}
            for chip, named in execution.memory.items()
        },
        "checks": [
            {
                "chip": one.check.chip,
                "name": one.check.name,
                "ok": one.ok,
                "wrong": one.wrong,
                "largest_error": _plain(one.largest),
                "within": one.check.within,
            }
            for one in execution.checks
        ],
        "digest": execution.digest,
    }


def _region(image: Image, chip: int, name: str, values: Array) -> dict[str, Any]:
    region = image.programs[chip].outputs[name]
    return {
        "type": region.dtype,
        "slice": region.index,
        "address": region.address,
        "values": [[_plain(value) for value in row] for row in values.tolist()],
    }


def _plain(value: float) -> float | str:
    """A number, or the name of one that JSON does not have."""
    return value if np.isfinite(value) else json.dumps(value)
