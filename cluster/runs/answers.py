"""Answers to many prompts as soon as each is whole: on stdout, and as a line of JSON in a file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import click

from cluster.files import naming

STOP, LENGTH = "stop", "length"  # a stop token; as many tokens as were asked for, or as fit


def finish_reason(tokens: list[int], stop: frozenset[int]) -> str:
    """Why a generation ended, in the words of the APIs that people know.

    >>> finish_reason([5, 2], frozenset({2})), finish_reason([5], frozenset({2}))
    ('stop', 'length')
    """
    return STOP if tokens and tokens[-1] in stop else LENGTH


class Answers:
    """Puts answers out; an interrupted run has written those that were whole."""

    def __init__(self, path: Path | None, quiet: bool) -> None:
        """Raise OSError where `path` cannot be written. `quiet` keeps stdout for the report."""
        self._path, self.quiet = path, quiet
        self._file: IO[str] | None = path.open("w", encoding="utf-8") if path else None

    def put(self, answer: Mapping[str, Any]) -> None:
        """Write an answer that is whole."""
        if self._file and self._path:
            with naming(self._path):
                self._file.write(json.dumps(answer) + "\n")
                self._file.flush()
        if not self.quiet:
            click.echo(f"[{answer['line']}] {answer['text']}")

    def __enter__(self) -> "Answers":
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
