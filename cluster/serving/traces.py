"""Traces of real traffic: Mooncake JSONL, Azure CSV, BurstGPT CSV, known by what they hold."""

import csv
import gzip
import io
import json
import zlib
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import BadValue, ClusterError
from cluster.serving.traffic import Traffic, in_order

OPTION = "TRACE"
BLOCK_TOKENS = 512  # of a Mooncake hash, unless the file shows that they are of 16
SMALL_BLOCK_TOKENS = 16
MOST_TOKENS = 1 << 24
AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
BURST = ("Timestamp", "Request tokens", "Response tokens")


class TraceError(ClusterError):
    """A line of a trace that cannot be read."""

    def __init__(self, path: str, line: int, column: str, problem: str) -> None:
        super().__init__(path, line, column, problem)
        self.path, self.line, self.column, self.problem = path, line, column, problem

    def message(self) -> str:
        """Return file, line, column and what is wrong there."""
        return f"{self.path}: line {self.line}, {self.column}: {self.problem}"


@dataclass
class _Columns:
    """What has been read so far."""

    path: Path
    arrives_s: "array[float]" = field(default_factory=lambda: array("d"))
    prompt: "array[int]" = field(default_factory=lambda: array("q"))
    new: "array[int]" = field(default_factory=lambda: array("q"))
    blocks: "array[int]" = field(default_factory=lambda: array("q"))
    hashes: "array[int]" = field(default_factory=lambda: array("q"))
    dropped: int = 0

    def add(self, line: int, at_s: float, sizes: tuple[int, int], names: tuple[str, str]) -> bool:
        """Take a request; False if nothing was answered, and so nothing is to be served."""
        for size, name, least in zip(sizes, names, (1, 0), strict=True):
            if not least <= size <= MOST_TOKENS:
                raise self.wrong(line, name, f"{size} is not {least} to {MOST_TOKENS} tokens")
        if sizes[1] == 0:
            self.dropped += 1
            return False
        self.arrives_s.append(at_s)
        self.prompt.append(sizes[0])
        self.new.append(sizes[1])
        self.blocks.append(0)
        return True

    def wrong(self, line: int, column: str, problem: str) -> TraceError:
        """The error of a place in the file."""
        return TraceError(str(self.path), line, column, problem)

    def traffic(self, block_tokens: int = 0) -> Traffic:
        """The requests, by arrival."""
        blocks = np.frombuffer(self.blocks, np.int64)
        hashes = np.frombuffer(self.hashes, np.int64) if self.hashes else np.zeros(1, np.int64)
        return in_order(
            Traffic(
                np.frombuffer(self.arrives_s, np.float64), np.frombuffer(self.prompt, np.int64),
                np.frombuffer(self.new, np.int64), hashes, np.cumsum(blocks) - blocks, blocks,
                block_tokens, dropped=self.dropped,
            )
        )  # fmt: skip


def read_trace(path: Path) -> Traffic:
    """The requests of a trace, read line by line; raises BadValue, or TraceError with its place."""
    try:
        with path.open("rb") as file:  # or a pipe, which is read once
            zipped = file.peek(2)[:2] == b"\x1f\x8b"
            data = gzip.GzipFile(fileobj=file) if zipped else file
            return _read(_Columns(path), io.TextIOWrapper(data, encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise BadValue(OPTION, path, "is not UTF-8 text") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadValue(OPTION, path, f"cannot be read: {reason}") from None


def _read(columns: _Columns, file: Iterable[str]) -> Traffic:
    path, lines, before = columns.path, iter(file), list[str]()
    for line in lines:
        before.append(line)
        if line.strip():
            break
    else:
        raise BadValue(OPTION, path, "is empty; there is no request in it")
    first, text = before[-1].strip(), chain(before, lines)
    if first.startswith("{"):
        found = _mooncake(columns, text)
    else:
        names = [name.strip() for name in next(csv.reader([first]))]
        if set(AZURE) <= set(names):
            found = _table(columns, text, AZURE, clock=True)
        elif set(BURST) <= set(names):
            found = _table(columns, text, BURST, clock=False)
        else:
            known = "Mooncake JSONL (timestamp, input_length, output_length, hash_ids), Azure CSV "
            known += f"({','.join(AZURE)}) and BurstGPT CSV ({','.join(BURST)}) are known"
            raise BadValue(OPTION, path, f"begins with {first[:60]!r}; {known}")
    if not len(found):
        raise BadValue(OPTION, path, "holds no request that was answered")
    return found


# --- Mooncake -------------------------------------------------------------------------------------
def _mooncake(columns: _Columns, text: Iterable[str]) -> Traffic:
    least = 0  # tokens that a hash stands for, as the longest prompts show
    for line, row in _records(columns, text):
        at_s = _number(columns, line, row, "timestamp") / 1e3
        names = "input_length", "output_length"
        sizes = _whole(columns, line, row, names[0]), _whole(columns, line, row, names[1])
        hashes = row.get("hash_ids", [])
        if not isinstance(hashes, list) or not all(type(h) is int for h in hashes):
            raise columns.wrong(line, "hash_ids", "is not a list of whole numbers")
        if not all(-(1 << 63) <= h < 1 << 63 for h in hashes):
            raise columns.wrong(line, "hash_ids", "a hash has more than 64 bits")
        if columns.add(line, at_s, sizes, names):
            columns.blocks[-1] = len(hashes)
            columns.hashes.extend(hashes)
            if hashes:
                least = max(least, -(-sizes[0] // len(hashes)))
    if not columns.hashes:
        return columns.traffic()
    return columns.traffic(SMALL_BLOCK_TOKENS if least <= SMALL_BLOCK_TOKENS else BLOCK_TOKENS)


def _records(columns: _Columns, text: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            where = f"column {error.colno}"
            raise columns.wrong(number, where, f"is not JSON: {error.msg}") from None
        except (ValueError, RecursionError):
            raise columns.wrong(number, "column 1", "is not JSON that can be read") from None
        if not isinstance(row, dict):
            raise columns.wrong(number, "column 1", "is no JSON object")
        yield number, row


def _number(columns: _Columns, line: int, row: dict[str, Any], name: str) -> float:
    value = row.get(name)
    if name not in row:
        raise columns.wrong(line, name, "is missing")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise columns.wrong(line, name, f"{value!r} is not a number")
    if not 0 <= value < 1e15:
        raise columns.wrong(line, name, f"{value} is not a time in milliseconds from 0 on")
    return float(value)


def _whole(columns: _Columns, line: int, row: dict[str, Any], name: str) -> int:
    value = row.get(name)
    if name not in row:
        raise columns.wrong(line, name, "is missing")
    if isinstance(value, bool) or not isinstance(value, int):
        raise columns.wrong(line, name, f"{value!r} is not a whole number")
    return value


# --- tables ---------------------------------------------------------------------------------------
def _table(
    columns: _Columns, text: Iterable[str], names: tuple[str, str, str], clock: bool
) -> Traffic:
    reader = csv.reader(text, skipinitialspace=True)
    header = [name.strip() for name in next(row for row in reader if any(row))]
    at = [header.index(name) for name in names]
    try:
        for row in reader:
            line = reader.line_num
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                problem = f"{len(row)} fields, where the header has {len(header)}"
                raise columns.wrong(line, "the whole line", problem)
            cells = [row[n].strip() for n in at]
            when = _clock if clock else _second
            at_s = when(columns, line, names[0], cells[0])
            prompt, new = (
                _count(columns, line, name, cell)
                for name, cell in zip(names[1:], cells[1:], strict=True)
            )
            columns.add(line, at_s, (prompt, new), (names[1], names[2]))
    except csv.Error as error:
        raise columns.wrong(reader.line_num, "the whole line", str(error)) from None
    return columns.traffic()


def _clock(columns: _Columns, line: int, name: str, cell: str) -> float:
    try:
        at = datetime.fromisoformat(cell)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        expected = "is not a time such as 2023-11-16 18:15:46.6805900"
        raise columns.wrong(line, name, f"{cell!r} {expected}") from None


def _second(columns: _Columns, line: int, name: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e12:
        raise columns.wrong(line, name, f"{cell!r} is not a time in seconds from 0 on")
    return value


def _count(columns: _Columns, line: int, name: str, cell: str) -> int:
    if not (cell.isascii() and cell.isdecimal() and len(cell) < 12):
        raise columns.wrong(line, name, f"{cell!r} is not a whole number")
    return int(cell)
