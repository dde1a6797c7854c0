"""`lpu spec [NAME|FILE]`: a chip as data, with the source of every number."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import click

from chip.own_spec import find
from chip.rates import c2c_bytes_per_s, rates
from chip.spec import ASSUMED, SPECS, ChipSpec
from cluster.runs.display import print_rows

UNITS = {"B": "bytes", "op": "ops"}


@click.command("spec")
@click.argument("name", required=False, metavar="[NAME|FILE.toml]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def spec_command(name: str | None, as_json: bool) -> None:
    """Print a chip generation, or list those that are known.

    A TOML file makes a chip of your own: `base = "groqchip1"`, then the fields that differ.
    """
    if name is None:
        _print_known(as_json)
        return
    spec = find(name)
    report = describe(spec)
    if as_json:
        click.echo(json.dumps(report))
    else:
        _print(spec, report)


def describe(spec: ChipSpec) -> dict[str, Any]:
    """All of a chip: fields, what follows from them, sources, assumptions."""
    values = {one.name: getattr(spec, one.name) for one in fields(spec)}
    del values["notes"], values["conventions"]
    values = {key: dict(v) if isinstance(v, Mapping) else v for key, v in values.items()}
    found = rates(spec)
    return {
        "name": spec.name,
        "fields": values,
        "derived": {
            "sram_bytes": spec.sram_bytes,
            "slices": spec.slices,
            "superlanes": spec.superlanes,
            "positions": spec.positions,
            "c2c_bytes_per_s": c2c_bytes_per_s(spec),
            **{f"{r.name}_{UNITS[r.unit]}_per_cycle": r.per_cycle for r in found},
            **{f"{r.name}_{UNITS[r.unit]}_per_s": r.per_s(spec.clock_hz) for r in found},
        },
        "sources": spec.sources,
        "assumptions": list(spec.assumptions),
    }


def _print_known(as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"specs": list(SPECS)}))
        return
    head = ("chip", "clock", "SRAM", "SRAM rate", "peak", "fp16")
    rows = []
    for spec in SPECS.values():
        by_name = {rate.name: rate.per_s(spec.clock_hz) for rate in rates(spec)}
        peak = "fp8" if "fp8" in by_name else "int8"
        rows.append((
            spec.name, f"{spec.clock_hz / 1e6:,.0f} MHz", f"{spec.sram_bytes / 2**20:,.1f} MiB",
            f"{by_name['sram'] / 1e12:.1f} TB/s", f"{by_name[peak] / 1e12:,.0f} TOPS {peak}",
            f"{by_name['fp16'] / 1e12:,.0f} TFLOPS",
        ))  # fmt: skip
    print_rows(head, rows)


def _print(spec: ChipSpec, report: Mapping[str, Any]) -> None:
    derived = [
        ("SRAM", _bytes(spec.sram_bytes), f"{spec.slices} slices x {spec.slice_words} words")
    ]
    for rate in rates(spec):
        per_s = f"{rate.per_s(spec.clock_hz) / 1e12:,.2f} T{rate.unit}/s"
        derived.append((rate.name, f"{rate.per_cycle:,} {rate.unit}/cycle = {per_s}", rate.made_of))
    c2c = f"{c2c_bytes_per_s(spec) / 1e9:,.0f} GB/s both ways, raw"
    derived.append(("C2C", c2c, f"{spec.c2c_ports} ports"))
    print_rows((spec.name, "total", "made of"), derived)
    shown = [
        (name, _value(report["fields"][name]), source) for name, source in spec.sources.items()
    ]
    print_rows(("field", "value", "source"), shown)
    assumed = [name for name in spec.assumptions if name not in spec.sources]
    count = sum(source.startswith(ASSUMED) for source in spec.sources.values())
    click.echo(f"{count} fields are assumptions (see the sources). So are these conventions:")
    click.echo("".join(f"  - {text}\n" for text in assumed), nl=False)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {cycles}" for key, cycles in value.items())
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _bytes(count: int) -> str:
    return f"{count:,} B = {count / 2**20:,.1f} MiB"
