"""`lpu asm`, `lpu disasm` and `lpu exec`: programs as text, as files, and at work."""

import json
import time
from pathlib import Path
from typing import Any

import click

from chip.assembly import disassemble, pack_image
from chip.assembly.image import Image, Network
from chip.own_spec import chip_of
from cluster.commands.parameters import FILE, NAME, TOPOLOGY, TRACE_FILE
from cluster.files import check_writable, write_whole
from cluster.machines.execution import Checked, Execution, execute, read_image, report
from cluster.runs.display import counted, print_rows
from cluster.tracing.files import write_timeline
from cluster.tracing.launch import programs_timeline

FAILED_CHECK = 1
_spec = click.option(
    "--spec", type=NAME, metavar="NAME|FILE", help="Chip, in place of the text's own."
)
_topology = click.option(
    "--topology", type=TOPOLOGY, metavar="SPEC", help="Such as ring:8, in place of the text's."
)
_profile = click.option("--profile", type=NAME, metavar="NAME", help="Link profile of --topology.")
_links = click.option(
    "--link", "links", multiple=True, metavar="FIELD=VALUE", help="Override a field of its links."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.command("asm")
@click.argument("file", type=FILE)
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Where to write the program.")
@_spec
@_topology
@_profile
@_links
@_json
def asm_command(file: Path, output: Path | None, as_json: bool, **options: Any) -> None:
    """Assemble the text FILE into a program: msgpack, with its data and expectations."""
    check_writable("--output", output)
    image = _read(file, **options)
    data = pack_image(image)
    if output is not None:
        write_whole(output, data)
    counts = _counts(image)
    found = {"path": str(output) if output else None, "bytes": len(data), **counts}
    if as_json:
        click.echo(json.dumps(found))
    else:
        chips = counted(counts["chips"], "chip")
        what = f"{counts['instructions']:,} instructions for {chips}"
        where = f" in {output}" if output else "; -o FILE writes it"
        click.echo(f"{what} of {counts['spec']}, {len(data):,} bytes{where}")


@click.command("disasm")
@click.argument("file", type=FILE)
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Where to write the text.")
def disasm_command(file: Path, output: Path | None) -> None:
    """Print the program in FILE as text that assembles to it again, to the bit.

    FILE is what `lpu asm` wrote, one program of a chip, or a text.
    """
    check_writable("--output", output)
    text = disassemble(read_image(file))
    if output is None:
        click.echo(text, nl=False)
    else:
        write_whole(output, text.encode())


@click.command("exec")
@click.argument("file", type=FILE)
@_spec
@_topology
@_profile
@_links
@click.option("--trace", type=TRACE_FILE, metavar="FILE", help="Write a timeline for Perfetto.")
@_json
def exec_command(file: Path, trace: Path | None, as_json: bool, **options: Any) -> int:
    """Run the programs in FILE, text or assembled, and check what they expect.

    Exits with 1 when a result is not as expected.
    """
    check_writable("--trace", trace)
    start = time.perf_counter()
    image = _read(file, **options)
    execution = execute(image)
    seconds = time.perf_counter() - start
    if trace:
        shown = image.programs, chip_of(image.spec).name, image.cables, file.stem
        write_timeline(trace, programs_timeline(*shown))
    if as_json:
        host = {"wall_s": seconds}
        click.echo(json.dumps({**report(execution), "host": host}))
    else:
        _print(execution, seconds)
    return 0 if all(one.ok for one in execution.checks) else FAILED_CHECK


def _read(
    file: Path,
    spec: str | None,
    topology: str | None,
    profile: str | None,
    links: tuple[str, ...],
) -> Image:
    if topology is None and (profile or links):
        raise click.UsageError("--profile and --link need --topology")
    return read_image(file, spec, Network(topology, profile or "", links) if topology else None)


def _counts(image: Image) -> dict[str, Any]:
    placed = [len(list(program.instructions())) for program in image.programs.values()]
    spec = chip_of(image.spec)
    return {"spec": spec.name, "chips": len(image.programs), "instructions": sum(placed)}


def _print(execution: Execution, seconds: float) -> None:
    counts, image = _counts(execution.image), execution.image
    rows = []
    verdicts = {(one.check.chip, one.check.name): _verdict(one) for one in execution.checks}
    for chip, named in execution.memory.items():
        for name, values in named.items():
            region = image.programs[chip].outputs[name]
            where = f"slice {region.index} address {region.address}"
            shown = ", ".join(f"{value:g}" for value in values[0, :4].tolist())
            rows.append((chip, name, f"{region.dtype} {values.shape[0]} x {values.shape[1]}",
                         where, f"{shown}, ...", verdicts.get((chip, name), "-")))  # fmt: skip
    print_rows(("chip", "output", "type", "stored at", "first lanes", "check"), rows)
    clock = chip_of(image.spec).clock_hz
    network = f" on {image.network.topology}" if image.network.topology else ""
    chips = counted(counts["chips"], "chip")
    click.echo(
        f"{counts['instructions']:,} instructions on {chips} of {counts['spec']}{network}: "
        f"{execution.cycles:,} cycles = {execution.cycles / clock * 1e6:.3f} us "
        f"(this host: {seconds:.2f} s)\ndigest {execution.digest}"
    )


def _verdict(one: Checked) -> str:
    within = f" within {one.check.within:g}" if one.check.within else ""
    if one.ok:
        return f"ok{within}" + (f", largest error {one.largest:.3g}" if within else ", exact")
    place = f"vector {one.vector} lane {one.lane}"
    return f"WRONG{within}: {one.wrong} elements, most {place} by {one.largest:.3g}"
