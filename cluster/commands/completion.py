"""`lpu completion SHELL`: what makes a shell complete commands, options and names."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_LPU_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS), metavar="SHELL")
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print the script for SHELL; for bash: eval "$(lpu completion bash)" in ~/.bashrc."""
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(ctx.find_root().command, {}, "lpu", VARIABLE).source())
