"""Types of options that several commands share: bounds, and sizes as people write them."""

import math
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from cluster.tracing.events import KERNELS, LEVELS
from topology.collectives.sums import FP32, SUM_FORMATS
from topology.registry import FAMILIES, MOST_CHIPS

SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\s*([kmgt]?)(i?)b?", re.IGNORECASE | re.ASCII)
RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
MOST_BYTES = 1 << 40


class Finite(click.FloatRange):
    """A number in a range; neither infinity nor what is not a number."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number."""
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"{value} is not a number in the range {self._describe_range()}.", param, ctx)
        return found


class Name(click.ParamType[str]):
    """A word of ours: a chip, a topology, a profile; not nothing."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text."""
        if not str(value).strip() or "\0" in str(value):
            self.fail(f"{str(value)!r} is no name.", param, ctx)
        return str(value)


class Topology(Name):
    """A SPEC of a topology; `list` prints what there is."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the SPEC."""
        if value == "list" and ctx is not None:
            width = max(len(family.usage) for family in FAMILIES.values())
            for family in FAMILIES.values():
                about = (family.build.__doc__ or "").partition("\n")[0]
                click.echo(f"{family.usage:{width}}  {about}")
            ctx.exit()
        return super().convert(value, param, ctx)


class FilePath(click.Path):
    """A file or folder; one that will be written must end in one of `suffixes`, if there are."""

    def __init__(self, *suffixes: str) -> None:
        super().__init__(path_type=Path)
        self.suffixes = suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        text = str(value)
        if not text or "\0" in text:
            self.fail(f"{text!r} is no path.", param, ctx)
        if self.suffixes and not text.endswith(self.suffixes):
            *others, last = self.suffixes
            kinds = " or ".join([", ".join(others), last] if others else [last])
            self.fail(f"'{text}' must end in {kinds}: no other format is written.", param, ctx)
        return Path(text)


class ByteCount(click.ParamType[int]):
    """Bytes, as 1000, 64k, 1M, 1.5GB (powers of 1,000) or 64Ki, 1MiB (powers of 1,024)."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes."""
        match = SIZE.fullmatch(str(value).strip())
        if match is None or (match[3] and not match[2]):
            self.fail(f"'{value}' is not a size such as 1000, 64k, 1M or 1MiB.", param, ctx)
        bytes_ = Fraction(match[1]) * (1024 if match[3] else 1000) ** POWERS[match[2].lower()]
        if bytes_.denominator != 1 or not 1 <= bytes_ <= MOST_BYTES:
            self.fail(f"{value} is not a whole number of 1 to {MOST_BYTES:,} bytes.", param, ctx)
        return int(bytes_)


class ChipList(click.ParamType[tuple[int, ...]]):
    """Chips, as 0,3-5."""

    name = "chips"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return their numbers, each once, in order."""
        found: set[int] = set()
        for part in str(value).split(","):
            match = RANGE.fullmatch(part.strip())
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
            if not first <= last < MOST_CHIPS:
                self.fail(f"'{value}' is no list of chips such as 0,3-5.", param, ctx)
            found.update(range(first, last + 1))
        return tuple(sorted(found))


COUNT = click.IntRange(min=1, max=1 << 24)  # of tokens, blocks, launches
GUESSES = click.IntRange(min=1, max=64)  # of a draft, under way at most
CHIPS = click.IntRange(min=1, max=MOST_CHIPS)  # and stages, and chips of a stage
IN_FLIGHT = click.IntRange(min=1, max=4096)  # sequences
ROWS = click.IntRange(min=1, max=32)  # of a decode launch, each of another sequence
NAME, TOPOLOGY = Name(), Topology()
FILE = FilePath()
JSON_FILE, JSONL_FILE = FilePath(".json"), FilePath(".jsonl")
PICTURE = FilePath(".svg", ".png")
REPORT_FILE = FilePath(".html", ".json")
TRACE_FILE = FilePath(".json", ".json.gz", ".pftrace")
SEED = click.IntRange(min=0, max=2**63 - 1)
DRIFT = Finite(min=0, max=100_000)  # parts per million, or cycles of jitter


report_option = click.option(
    "--report", "report_file", type=REPORT_FILE, metavar="FILE",
    help="Write a page to look at (.html), or the JSON object (.json).",
)  # fmt: skip


sums_option = click.option(
    "--sums-between-nodes", type=click.Choice(list(SUM_FORMATS)), default=FP32, show_default=True,
    help="How nodes of a tensor group send each other their partial sums; fp16 has half the bytes, "
    "and rounds each once.",
)  # fmt: skip


def gpu_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: --prefill-on, --afd and --between."""
    for option in (
        click.option("--between", multiple=True, metavar="LINK|FIELD=VALUE",
                     help="What joins them: ethernet-400g (default), pcie5x16, bytes_per_s=..., "
                     "latency_s=..., links=... (one for each GPU)."),
        click.option("--afd", metavar="GPU:N",
                     help="Attention and caches on GPUs, FFNs and experts on LPUs, as B200:8."),
        click.option("--prefill-on", metavar="GPU:N",
                     help="Prompts on GPUs, as H200:8; keys and values cross once a turn."),
    ):  # fmt: skip
        command = option(command)
    return command


def guess_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: --acceptance, --draft and --draft-tokens of a plan."""
    for option in (
        click.option("--draft-tokens", type=GUESSES, metavar="K",
                     help="Guesses under way at most (default 4)."),
        click.option("--draft", type=NAME, metavar="WHAT",
                     help="What guesses: ngram:N, or a model such as smollm2-int8."),
        click.option("--acceptance", type=Finite(min=0.0, max=1.0), metavar="A",
                     help="Time speculative decoding with so large a share of guesses right."),
    ):  # fmt: skip
        command = option(command)
    return command


def trace_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: --trace, --trace-level and --trace-chips."""
    for option in (
        click.option("--trace-chips", type=ChipList(), metavar="0,3-5", help="Of these alone."),
        click.option("--trace-level", type=click.Choice(LEVELS), default=KERNELS,
                     show_default=True, help="How fine the timeline is."),
        click.option("--trace", type=TRACE_FILE, metavar="FILE", help="Write the timeline of a "
                     "token for Perfetto: .json, .json.gz or .pftrace."),
    ):  # fmt: skip
        command = option(command)
    return command
