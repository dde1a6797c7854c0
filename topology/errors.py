"""Errors of the topology package: positional fields, text made in `__str__`, so all pickle."""


class TopologyError(Exception):
    """Anything wrong with a graph, link, route, timetable, clock or collective; one line."""


class BadSpec(TopologyError):
    """A topology SPEC that cannot be parsed or built."""

    def __init__(self, spec: str, problem: str, remedy: str) -> None:
        super().__init__(spec, problem, remedy)
        self.spec, self.problem, self.remedy = spec, problem, remedy

    def __str__(self) -> str:
        return f"topology '{self.spec}': {self.problem}; {self.remedy}"


class BadLink(TopologyError):
    """A link or profile field with an unknown name or an impossible value."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        super().__init__(field, value, remedy)
        self.field, self.value, self.remedy = field, value, remedy

    def __str__(self) -> str:
        return f"link field '{self.field}' = {self.value!r}: {self.remedy}"


class PortsExceeded(TopologyError):
    """A chip of the graph needs more cables than it has ports."""

    def __init__(self, topology: str, chip: int, needed: int, limit: int) -> None:
        super().__init__(topology, chip, needed, limit)
        self.topology, self.chip, self.needed, self.limit = topology, chip, needed, limit

    def __str__(self) -> str:
        return (
            f"topology '{self.topology}': chip {self.chip} needs {self.needed} ports, the profile"
            f" allows {self.limit}; use fewer links or override links_per_chip={self.needed}"
        )


class Disconnected(TopologyError):
    """A graph in which some chip cannot reach another."""

    def __init__(self, topology: str, chip: int, unreachable: int) -> None:
        super().__init__(topology, chip, unreachable)
        self.topology, self.chip, self.unreachable = topology, chip, unreachable

    def __str__(self) -> str:
        return (
            f"topology '{self.topology}': chip {self.unreachable} cannot be reached from chip"
            f" {self.chip}; add a link so that the graph is connected"
        )


class BadFile(TopologyError):
    """A graph file that is missing or not what it should be."""

    def __init__(self, path: str, problem: str, remedy: str) -> None:
        super().__init__(path, problem, remedy)
        self.path, self.problem, self.remedy = path, problem, remedy

    def __str__(self) -> str:
        return f"graph file '{self.path}': {self.problem}; {self.remedy}"


class NoRoute(TopologyError):
    """No path between two chips (or no such chip)."""

    def __init__(self, topology: str, src: int, dst: int) -> None:
        super().__init__(topology, src, dst)
        self.topology, self.src, self.dst = topology, src, dst

    def __str__(self) -> str:
        return f"topology '{self.topology}': no route from chip {self.src} to chip {self.dst}"


class LinkConflict(TopologyError):
    """Two vectors on one directed cable closer together than its rate allows."""

    def __init__(self, src: int, dst: int, cable: int, cycle: int, owner: str, other: str) -> None:
        super().__init__(src, dst, cable, cycle, owner, other)
        self.src, self.dst, self.cable, self.cycle = src, dst, cable, cycle
        self.owner, self.other = owner, other

    def __str__(self) -> str:
        return (
            f"link {self.src}->{self.dst} cable {self.cable} at cycle {self.cycle}:"
            f" '{self.owner}' collides with '{self.other}'"
        )


class CausalityError(TopologyError):
    """A collective that sends a vector before it has it, or overwrites one before it is sent."""

    def __init__(self, chip: int, vector: int, cycle: int, problem: str) -> None:
        super().__init__(chip, vector, cycle, problem)
        self.chip, self.vector, self.cycle, self.problem = chip, vector, cycle, problem

    def __str__(self) -> str:
        return f"chip {self.chip} vector {self.vector} at cycle {self.cycle}: {self.problem}"


class BadCollective(TopologyError):
    """An unknown operation or algorithm, or one that this group of chips cannot run."""

    def __init__(self, operation: str, problem: str, remedy: str) -> None:
        super().__init__(operation, problem, remedy)
        self.operation, self.problem, self.remedy = operation, problem, remedy

    def __str__(self) -> str:
        return f"collective '{self.operation}': {self.problem}; {self.remedy}"


class MarginExceeded(TopologyError):
    """Clock drift or link jitter beyond what the schedule holds; names the link."""

    def __init__(
        self, src: int, dst: int, cycle: int, slip_cycles: int, margin_cycles: int
    ) -> None:
        super().__init__(src, dst, cycle, slip_cycles, margin_cycles)
        self.src, self.dst, self.cycle = src, dst, cycle
        self.slip_cycles, self.margin_cycles = slip_cycles, margin_cycles

    def __str__(self) -> str:
        return (
            f"link {self.src}->{self.dst}: receive at cycle {self.cycle} misses by"
            f" {self.slip_cycles} cycles, the margin is {self.margin_cycles};"
            " lower the drift or jitter, or insert Runtime deskew more often"
        )


class BadFault(TopologyError):
    """A fault description that names nothing in the graph, or that cannot be survived."""

    def __init__(self, fault: str, problem: str, remedy: str) -> None:
        super().__init__(fault, problem, remedy)
        self.fault, self.problem, self.remedy = fault, problem, remedy

    def __str__(self) -> str:
        return f"fault '{self.fault}': {self.problem}; {self.remedy}"
