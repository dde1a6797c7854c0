"""What it takes to get a page again: the command as it was given, and versions."""

import platform
import shlex
from importlib.metadata import PackageNotFoundError, version

import click
from click.core import ParameterSource

from cluster import __version__

PACKAGES = ("numpy", "numba", "networkx", "matplotlib")


def command_line() -> str:
    """The command that is running, with the options that were given, for a shell."""
    context = click.get_current_context(silent=True)
    if context is None:
        return "python"
    words = context.command_path.split()
    options: list[str] = []
    for param in context.command.params:
        name = param.name or ""
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params.get(name)
        if isinstance(param, click.Argument):
            words.append(_text(value))
        elif isinstance(param, click.Option) and param.is_flag:
            options.append(param.opts[0])
        elif param.multiple:
            options += [word for one in value or () for word in (param.opts[0], _text(one))]
        else:
            options += [param.opts[0], _text(value)]
    return shlex.join([*words, *options])


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def versions() -> dict[str, str]:
    """Versions of this package and of what its numbers and pictures come of."""
    found = {"lpu-cluster": __version__, "Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | {"machine": f"{platform.system()} {platform.machine()}"}
