"""The command `lpu`: finds its subcommands lazily, and turns every error into one line."""

import importlib
import io
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from difflib import get_close_matches
from typing import Any

import click

from cluster import __version__, interrupts
from cluster.loudness import LOUDNESS, QUIET, VERBOSE

OK, FAILED_CHECK, BAD_INPUT, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, interrupts.INTERRUPTED, 1

# name -> (module, attribute, one line of help): nothing is imported until its command is used.
COMMANDS = {
    "run": ("cluster.commands.run", "run_command", "Generate text with a model on a cluster."),
    "serve": ("cluster.commands.serve", "serve_command", "Answer clients of OpenAI over HTTP."),
    "plan": ("cluster.commands.plan", "plan_command", "Plan a model on a cluster, and time it."),
    "replay": ("cluster.commands.replay", "replay_command", "Serve a trace in virtual time."),
    "sweep": ("cluster.commands.sweep", "sweep_command", "Compute a grid of plans, and answer."),
    "models": ("cluster.commands.model", "models_command", "List the models that are known."),
    "model": ("cluster.commands.model", "model_command", "Print a model's graph and sizes."),
    "fetch": ("cluster.commands.fetch", "fetch_command", "Download a model into the cache."),
    "spec": ("cluster.commands.spec", "spec_command", "Print a chip: rates, fields, sources."),
    "embed": ("cluster.commands.embed", "embed_command", "Embed sentences with an encoder."),
    "compare": ("cluster.commands.compare", "compare_command", "Compare with GPUs and TPUs."),
    "validate": (
        "cluster.commands.validate",
        "validate_command",
        "Compare with published numbers.",
    ),
    "energy": ("cluster.commands.energy", "energy_command", "Print energies and their fit."),
    "isa": ("cluster.commands.isa", "isa_command", "Print the instruction set."),
    "asm": ("cluster.commands.assembly", "asm_command", "Assemble a program text."),
    "disasm": ("cluster.commands.assembly", "disasm_command", "Print a program as text."),
    "exec": ("cluster.commands.assembly", "exec_command", "Run programs and check their results."),
    "topology": (
        "cluster.commands.topology_commands",
        "topology_command",
        "Print the facts of a topology.",
    ),
    "collective": (
        "cluster.commands.topology_commands",
        "collective_command",
        "Time a collective on a topology.",
    ),
    "doctor": ("cluster.commands.doctor", "doctor_command", "Look at what this host has."),
    "completion": (
        "cluster.commands.completion",
        "completion_command",
        "Print a shell's completion script.",
    ),
}
HELP: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
# Commands that can end anywhere: there is nothing to put away.
KEEP_NOTHING = {"doctor", "plan", "compare", "validate", "topology", "collective", "energy"}
# Errors of ours that bad input causes; looked up by name so that no package is imported for it.
OUR_ERRORS = {
    "cluster.errors.ClusterError",
    "chip.errors.ChipError",
    "topology.errors.TopologyError",
}

# A result that fails its own check: the input is good, what came of it is not.
CHECKS = {
    "cluster.machines.machine.ScheduleMismatch",
    "cluster.errors.ClockMiss",
    "topology.errors.MarginExceeded",
}


class LazyGroup(click.Group):
    """Subcommands by table; `lpu --help` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            near = get_close_matches(cmd_name, COMMANDS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            names = ", ".join(COMMANDS)
            raise click.UsageError(f"No such command '{cmd_name}'.{hint} There are {names}.", ctx)
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        command.context_settings.update(HELP)
        return loudness_options(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


def loudness_options(command: click.Command) -> click.Command:
    """Give a command `--quiet` and `--verbose`, as `lpu` itself has them, once."""
    names = {parameter.name for parameter in command.params}
    for level, line in ((QUIET, "No progress and no notes."), (VERBOSE, "Also say what is done.")):
        if level not in names:
            option = click.Option([f"--{level}"], is_flag=True, expose_value=False,
                                  callback=_set_loudness, help=line)  # fmt: skip
            command.params.append(option)
    return command


def _set_loudness(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[LOUDNESS] = option.name
        if option.name == VERBOSE:
            logging.basicConfig(level=logging.INFO, format="lpu: %(name)s: %(message)s")


@click.group(cls=LazyGroup, invoke_without_command=True, context_settings=HELP)
@click.version_option(__version__, message="lpu %(version)s")
@click.pass_context
def lpu(ctx: click.Context) -> None:
    """Emulate clusters of LPU chips, cycle by cycle, with real language models."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


loudness_options(lpu)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. LPU_DEBUG=1 lets tracebacks through."""
    given = sys.argv[1:] if arguments is None else arguments
    quits = bool(given) and given[0] in KEEP_NOTHING and _in_main_thread()
    try:
        if _in_main_thread():
            signal.signal(signal.SIGINT, interrupts.raise_interrupt)
        for stream in (sys.stdout, sys.stderr):  # a locale or a name need not be UTF-8
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        start = time.perf_counter()
        with interrupts.ends_at_once() if quits else nullcontext():
            code = lpu.main(arguments, prog_name="lpu", standalone_mode=False, obj=start)
        sys.stdout.flush()
        ended = code if isinstance(code, int) else OK
        if quits and arguments is None:  # to put away memory in order can take seconds
            interrupts.leave(ended)
        return ended
    except (KeyboardInterrupt, click.Abort):
        interrupts.disarm()
        if quits and arguments is None:
            interrupts.end_now()
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except Exception as error:
        if os.environ.get("LPU_DEBUG") == "1":
            raise
        return _complain(*describe(error))


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def describe(error: Exception) -> tuple[str, int]:
    """Return the line that tells a user of `error`, and the exit code."""
    if isinstance(error, click.ClickException):
        context = error.ctx if isinstance(error, click.UsageError) else None
        hint = f" Try '{context.command_path} --help'." if context else ""
        return error.format_message() + hint, BAD_INPUT
    classes = {f"{c.__module__}.{c.__qualname__}" for c in type(error).__mro__}
    if classes & CHECKS:
        return str(error), FAILED_CHECK
    if classes & OUR_ERRORS:
        return str(error), BAD_INPUT
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}", BAD_INPUT
    name = type(error).__name__
    return f"internal error: {name}: {error} (LPU_DEBUG=1 shows where)", FAILED_CHECK


def _complain(message: str, code: int) -> int:
    click.echo(f"lpu: {' '.join(message.split())}", err=True)
    return code
