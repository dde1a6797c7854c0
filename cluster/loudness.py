"""How much a command says beside its result: `--quiet`, `--verbose`, or neither."""

import click

QUIET, VERBOSE = "quiet", "verbose"
LOUDNESS = "lpu.loudness"  # in the context of click, which all commands of a call share


def loudness() -> str:
    """`quiet`, `verbose` or "", as the command line says; "" where there is none."""
    ctx = click.get_current_context(silent=True)
    return str(ctx.meta.get(LOUDNESS, "")) if ctx else ""
