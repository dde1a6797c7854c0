"""Lines to an image: sections, loops and names are resolved here, cycles in `place`."""

import json
from collections.abc import Callable
from dataclasses import astuple, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from lark import Token

from chip.arrays import Array
from chip.assembly.image import Check, Fill, Image, Network
from chip.assembly.lines import Written, read_line
from chip.assembly.parse import Node, parse, parts
from chip.assembly.part import STARTUP, Part, line_by_cycle
from chip.assembly.place import Placer
from chip.assembly.source import Env, Source
from chip.assembly.values import Shape, as_vectors, evaluate
from chip.board import Cable
from chip.errors import ChipError, ProgramError
from chip.isa import NUMPY_TYPES
from chip.linker.timeline import locate
from chip.own_spec import chip_of, find
from chip.program import Region
from chip.spec import GROQCHIP1, ChipSpec

MAX_LINES = 200_000  # after loops and chips are written out
CablesOf = Callable[[Network, ChipSpec, tuple[int, ...]], tuple[Cable, ...]]


def no_cables(network: Network, spec: ChipSpec, chips: tuple[int, ...]) -> tuple[Cable, ...]:
    """For text without a topology; refuses any other."""
    if network.topology:
        raise ProgramError("a topology needs a reader of topologies")
    return ()


def assemble(
    text: str,
    path: str = "program",
    cables_of: CablesOf = no_cables,
    spec: ChipSpec | None = None,
    network: Network | None = None,
) -> Image:
    """The image of a program text; `spec` and `network` replace those that it names.

    `cables_of` gives the cables of a topology for a chip, and refuses one without these chips.
    Raises AssemblyError with line and column.
    """
    source = Source(path, Path(path).parent)
    tree = parse(text, path)
    work = _Assembly(source, spec, network)
    work.block(parts(tree), {})
    return work.image(cables_of)


class _Assembly:
    def __init__(self, source: Source, spec: ChipSpec | None, network: Network | None) -> None:
        self.source, self.fixed_spec, self.fixed_network = source, spec, network
        self.spec = spec or GROQCHIP1
        self.network = network or Network()
        self.network_at: Token | None = None
        self.cables: list[Cable] = []
        self.parts: dict[int, Part] = {}
        self.here: list[int] = []  # chips that the next line is for
        self.fills: list[Fill] = []
        self.expected: list[tuple[Part, Node, Env]] = []
        self.count = 0

    # --- walking over the lines ---------------------------------------------------------------
    def block(self, nodes: list[Node], env: Env) -> None:
        at = 0
        while at < len(nodes):
            node = nodes[at]
            if node.data == "loop_end":
                raise self.source.error(_first(node), ".end without .for")
            if node.data == "loop_begin":
                end = self._end_of(nodes, at)
                name, span = parts(node)
                for number in self.source.span(span, self._env(env)):
                    self.block(nodes[at + 1 : end], {**env, str(name): number})
                at = end + 1
                continue
            self._count(node)
            self._once(node, env) if node.data in ONCE_FOR_ALL else self._for_chips(node, env)
            at += 1

    def _end_of(self, nodes: list[Node], begin: int) -> int:
        depth = 0
        for at in range(begin, len(nodes)):
            depth += {"loop_begin": 1, "loop_end": -1}.get(nodes[at].data, 0)
            if depth == 0:
                return at
        raise self.source.error(nodes[begin].children[0], ".for without .end")

    def _count(self, node: Node) -> None:
        self.count += 1
        if self.count > MAX_LINES:
            raise self.source.error(_first(node), f"more than {MAX_LINES} lines, loops written out")

    def _env(self, env: Env) -> Env:
        """Variables of a line that is not for every chip: those of the first one."""
        return {**(self.parts[self.here[0]].env if self.here else {}), **env}

    def _once(self, node: Node, env: Env) -> None:
        getattr(self, f"_{node.data}")(node, self._env(env))

    def _for_chips(self, node: Node, env: Env) -> None:
        if not self.here:
            self._begin_chips([0])
        for number in self.here:
            part = self.parts[number]
            try:
                getattr(self, f"_{node.data}")(part, node, {**part.env, **env})
            except (ProgramError, ValueError) as error:
                what = error.what if isinstance(error, ProgramError) else str(error)
                raise self.source.error(_first(node), what) from None

    def _begin_chips(self, numbers: list[int]) -> None:
        self.here = numbers
        for number in numbers:
            self.parts.setdefault(number, Part(number, self._given(number))).queue = None

    def _given(self, number: int) -> dict[str, int]:
        """Variables that are always there: the chip, its lanes, and its first western slice."""
        return {"chip": number, "lanes": self.spec.lanes, "west": self.spec.hemisphere_slices}

    # --- lines for the whole program -----------------------------------------------------------
    def _spec(self, node: Node, env: Env) -> None:
        token = _first(node)
        if self.parts:
            raise self.source.error(token, ".spec must come before the first line of a chip")
        if self.fixed_spec is None:
            text = json.loads(token) if token.type == "STRING" else self.source.text(token, env)
            own = text.endswith(".toml")
            try:
                found = chip_of(text) if text.startswith("{") else None
                self.spec = found or find(str(self.source.folder / text) if own else text)
            except (ChipError, OSError) as error:
                raise self.source.error(token, str(error)) from None

    def _topology(self, node: Node, env: Env) -> None:
        token = _first(node)
        words = {str(part.data): part for part in parts(node)[1:]}
        links = [part for part in parts(node)[1:] if part.data == "link"]
        found = Network(
            self.source.text(token, env),
            self.source.text(words["profile"].children[0], env) if "profile" in words else "",
            tuple(f"{a}{self.source.text(b, env)}" for a, b in (link.children for link in links)),
        )
        if self.network_at is not None or self.cables:
            raise self.source.error(token, "the cables are known already")
        self.network_at, self.network = token, self.fixed_network or found

    def _cable(self, node: Node, env: Env) -> None:
        a, b, latency, *interval = parts(node)
        ends = []
        for token in (a, b):
            words = self.source.text(token, env).split(":")
            if len(words) != 2 or not all(word.isdecimal() for word in words):
                raise self.source.error(token, f"{token} is not CHIP:PORT, such as 0:1")
            ends.append((int(words[0]), int(words[1])))
        if self.network.topology:
            raise self.source.error(a, "a program has a topology or cables, not both")
        rate = Fraction(1)
        if interval:
            try:
                rate = Fraction(self.source.text(interval[0].children[0], env))
            except (ValueError, ZeroDivisionError):
                rate = Fraction(0)
            if rate <= 0:
                raise self.source.error(interval[0].children[0], "is not a rate such as 27 or 59/2")
        latency_cycles = self.source.integer(latency, env)
        self.cables.append(Cable(*ends[0], *ends[1], latency_cycles, rate))

    def _chip(self, node: Node, env: Env) -> None:
        token = _first(node)
        span = self.source.span(token, env)
        if not 0 < len(span) <= 65_536:
            raise self.source.error(token, f"{token} is not a chip, or chips such as 0..7")
        self._begin_chips(list(span))

    # --- lines for each chip -------------------------------------------------------------------
    def _section(self, part: Part, node: Node, env: Env) -> None:
        part.queue = _first(node)
        for _, queue in self._units(part.queue, env):
            if queue not in part.queues:
                part.queues.append(queue)

    def _placed(self, part: Part, node: Node, env: Env) -> None:
        tokens = {child.type: child for child in parts(node) if isinstance(child, Token)}
        queue = tokens.get("QUEUE", part.queue)
        if queue is None:
            raise self.source.error(tokens["OP"], "on which queue? write it before, as in mem.r:3")
        written = Written(self.source, node, tokens, env)
        for member, name in self._units(queue, env):
            line = read_line(written, name, member, part.maps)
            part.lines.append(line)
            if name not in part.queues:
                part.queues.append(name)

    def _units(self, token: Token, env: Env) -> list[tuple[int, str]]:
        """(number in the range, queue) of a word such as mem.r:3 or mem.r:0..15."""
        family, _, units = self.source.text(token, env).partition(":")
        if family == STARTUP:  # the start sequence, which stands in no unit
            return [(0, str(token))]
        first, dots, last = units.partition("..")
        if not first.isdecimal() or (dots and not last.isdecimal()):
            raise self.source.error(token, f"{family}:{units} is not a queue such as mem.r:3")
        span = range(int(first), int(last if dots else first) + 1)
        if not 0 < len(span) <= 1024:
            raise self.source.error(token, f"{family}:{units} is an empty range")
        names = [f"{family}:{unit}" for unit in span]
        try:
            for name in names:
                locate(name, self.spec)
        except ProgramError as error:
            raise self.source.error(token, error.what) from None
        return list(enumerate(names))

    def _begin(self, part: Part, node: Node, env: Env) -> None:
        part.start_cycle = self.source.integer(_first(node), env)

    def _deskew(self, part: Part, node: Node, env: Env) -> None:
        part.deskew_interval_cycles = self.source.integer(_first(node), env)

    def _startup(self, part: Part, node: Node, env: Env) -> None:
        part.queue = Token("QUEUE", STARTUP)

    def _let(self, part: Part, node: Node, env: Env) -> None:
        name, tree = parts(node)
        part.env[str(name)] = self.source.whole(tree, env)

    def _map(self, part: Part, node: Node, env: Env) -> None:
        name, tree = parts(node)
        key = self.source.text(name, env)
        if key in part.maps:
            raise self.source.error(name, f"map {key} is defined twice")
        shape = Shape(1, self.spec.lanes, self.source.folder)
        found = np.asarray(evaluate(self.source, tree, env, lambda _: None, shape))
        if found.ndim != 1 or found.dtype.kind not in "iu":
            raise self.source.error(name, f"map {key} is not a list of lanes")
        part.maps[key] = tuple(int(lane) for lane in found)

    def _data(self, part: Part, node: Node, env: Env) -> None:
        name, region, values = self._region(part, node, env)
        self._fill(part, name, region, values)

    _constant = _data

    def _fill(self, part: Part, name: str, region: Region, values: Array | None) -> None:
        if values is not None:
            part.values[name] = values
            self.fills.append(Fill(part.number, region, values))

    def _output(self, part: Part, node: Node, env: Env) -> None:
        name, region, values = self._region(part, node, env)
        self._fill(part, name, region, values)

    def _expect(self, part: Part, node: Node, env: Env) -> None:
        self.expected.append((part, node, env))

    def _region(self, part: Part, node: Node, env: Env) -> tuple[str, Region, Array | None]:
        token, kind, index, address, *rest = parts(node)
        more = {str(child.data): child.children for child in rest}
        name = json.loads(token) if token.type == "STRING" else self.source.text(token, env)
        taken = part.regions.setdefault(str(node.data), {})
        if name in taken:
            raise self.source.error(token, f"{name} is defined twice")
        dtype = self.source.text(kind, env)
        if dtype not in NUMPY_TYPES:
            raise self.source.error(kind, f"unknown type {dtype}; known: {', '.join(NUMPY_TYPES)}")
        count = self.source.integer(more["vectors"][0], env) if "vectors" in more else None
        layout = "columns" if "columns" in more else "rows"
        where = self.source.integer(index, env), self.source.integer(address, env)
        region = Region(*where, 1 if count is None else count, dtype, layout)
        region.check(self.spec.slices, self.spec.slice_words)
        values = None
        if "content" in more:
            values = self._values(part, more["content"][0], env, dtype, count)
            region = replace(region, vectors=len(values))
            region.check(self.spec.slices, self.spec.slice_words)
        taken[name] = region
        return name, region, values

    def _values(self, part: Part, tree: Node, env: Env, dtype: str, count: int | None) -> Array:
        def regions(name: str) -> Array | None:
            chip, dot, key = name.partition(".")
            number = chip.removeprefix("chip")
            other = part
            if dot and number.isdecimal() and int(number) in self.parts and number != chip:
                other, name = self.parts[int(number)], key
            found = other.values.get(name)
            if found is None:
                return None
            return found.astype(np.float64 if found.dtype.kind == "f" else np.int64)

        shape = Shape(count or 1, self.spec.lanes, self.source.folder)
        value = evaluate(self.source, tree, env, regions, shape)
        try:
            return as_vectors(value, count, self.spec.lanes, dtype)
        except ValueError as error:
            raise self.source.error(tree, str(error)) from None

    # --- the image ------------------------------------------------------------------------------
    def image(self, cables_of: CablesOf) -> Image:
        if not self.parts:
            self._begin_chips([0])
        cables = tuple(self.cables)
        if self.network.topology:
            try:
                cables = cables_of(self.network, self.spec, tuple(self.parts))
            except Exception as error:
                if self.network_at is None or isinstance(error, ProgramError):
                    raise
                raise self.source.error(self.network_at, str(error)) from None
        checks = tuple(check for one in self.expected for check in self._checks(*one))
        lines = {part.number: part.lines for part in self.parts.values()}
        placer = Placer(self.source, self.spec, lines, cables)
        programs, where = {}, {}
        for number, part in sorted(self.parts.items()):
            queues, places = placer.queues(number, part.queues)
            programs[number] = part.program(self.spec, queues)
            where.update(line_by_cycle(programs[number], places))
        fills = sorted(self.fills, key=lambda fill: (fill.chip, *astuple(fill.region)))
        return Image(programs, self.network, cables, tuple(fills), checks, where)

    def _checks(self, part: Part, node: Node, env: Env) -> list[Check]:
        token, tree, *within = parts(node)
        name = json.loads(token) if token.type == "STRING" else self.source.text(token, env)
        region = part.regions.get("output", {}).get(name)
        if region is None:
            known = ", ".join(part.regions.get("output", {})) or "none"
            raise self.source.error(
                token, f"chip {part.number} has no .output {name}; it has {known}"
            )
        values = self._values(part, tree, env, region.dtype, region.vectors)
        tolerance = 0.0
        if within:
            found = self._values(part, within[0].children[0], env, "f32", 1)
            tolerance = float(found[0, 0])
        return [Check(part.number, name, values, tolerance)]


ONCE_FOR_ALL = {"spec", "topology", "cable", "chip"}


def _first(node: Node) -> Token:
    """The first token of a line."""
    token = next(node.scan_values(lambda value: isinstance(value, Token)), None)
    return token if isinstance(token, Token) else Token("_NL", "")
