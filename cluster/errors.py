"""Errors a user can cause: each prints as one line that says what, where, how much and what to do.

Fields are passed positionally to `Exception.__init__` and formatted in `message`, so that an error
raised inside a Ray actor arrives in the driver as the same class with the same fields.
"""

from collections.abc import Sequence
from difflib import get_close_matches


class ClusterError(Exception):
    """Bad input. `str()` is one line; the command line prints it and exits with 2."""

    def message(self) -> str:
        """Return the text of the error; may contain line breaks."""
        return str(self.args[0]) if self.args else type(self).__name__

    def __str__(self) -> str:
        return " ".join(self.message().split())


class ModelError(ClusterError):
    """A model file or specification is damaged, incomplete or of an unsupported kind."""

    def __init__(self, source: str, problem: str, advice: str = "") -> None:
        super().__init__(source, problem, advice)
        self.source, self.problem, self.advice = source, problem, advice

    def message(self) -> str:
        """Return `source: problem; advice`."""
        return f"{self.source}: {self.problem}" + (f"; {self.advice}" if self.advice else "")


class FetchError(ClusterError):
    """A model could not be downloaded; the cache is as it was before."""

    def __init__(self, model: str, problem: str, advice: str = "") -> None:
        super().__init__(model, problem, advice)
        self.model, self.problem, self.advice = model, problem, advice

    def message(self) -> str:
        """Return what failed and what to do."""
        text = f"cannot fetch {self.model}: {self.problem}"
        return text + (f"; {self.advice}" if self.advice else "")


class PromptTooLong(ClusterError):
    """Prompt and new tokens together exceed the context."""

    def __init__(
        self,
        prompt_tokens: int,
        new_tokens: int,
        context_tokens: int,
        advice: str = "shorten it, or raise --context",
    ) -> None:
        super().__init__(prompt_tokens, new_tokens, context_tokens, advice)
        self.prompt_tokens, self.new_tokens = prompt_tokens, new_tokens
        self.context_tokens, self.advice = context_tokens, advice

    def message(self) -> str:
        """Return the three counts."""
        return (
            f"prompt of {self.prompt_tokens} tokens plus {self.new_tokens} new tokens does not fit "
            f"the context of {self.context_tokens}; {self.advice}"
        )


class DoesNotFit(ClusterError):
    """A pipeline stage needs more SRAM than a chip has."""

    def __init__(self, stage: int, needs_bytes: int, has_bytes: int, advice: str = "") -> None:
        super().__init__(stage, needs_bytes, has_bytes, advice)
        self.stage, self.needs_bytes, self.has_bytes = stage, needs_bytes, has_bytes
        self.advice = advice

    def message(self) -> str:
        """Return the stage and both sizes in MiB."""
        needs, has = self.needs_bytes / 2**20, self.has_bytes / 2**20
        text = f"stage {self.stage} needs {needs:.1f} MiB of SRAM, a chip has {has:.1f} MiB"
        return text + (f"; {self.advice}" if self.advice else "")


class UnknownName(ClusterError):
    """A name that is not in a table: a model, a topology, an option."""

    def __init__(self, kind: str, name: str, known: Sequence[str]) -> None:
        super().__init__(kind, name, tuple(known))
        self.kind, self.name, self.known = kind, name, tuple(known)

    def message(self) -> str:
        """Return the name with the nearest known ones, or all of them."""
        near = get_close_matches(self.name.lower(), self.known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(self.known)}"
        return f"unknown {self.kind} '{self.name}'; {hint}"


class BadValue(ClusterError):
    """An option whose value breaks a condition."""

    def __init__(self, option: str, value: object, requirement: str) -> None:
        super().__init__(option, value, requirement)
        self.option, self.value, self.requirement = option, value, requirement

    def message(self) -> str:
        """Return the option, its value and the condition that must hold."""
        return f"{self.option} {self.value}: {self.requirement}"


class ClockMiss(ClusterError):
    """A vector that arrives after its Receive: clocks worse than the schedule was made for.

    `link` is (sender, receiver), `missed` (launch cycle, cycles too late, margin), `really` and
    `holds` (drift in ppm, jitter in cycles).
    """

    def __init__(
        self,
        launch: str,
        link: tuple[int, int],
        missed: tuple[int, int, int],
        really: tuple[float, float],
        holds: tuple[float, float],
    ) -> None:
        super().__init__(launch, link, missed, really, holds)
        self.launch, self.link, self.missed = launch, link, missed
        self.really, self.holds = really, holds

    def message(self) -> str:
        """Return the link, by how much it misses, and what to change."""
        cycle, late, margin = self.missed
        return (
            f"link {self.link[0]}->{self.link[1]} misses the receive of cycle {cycle:,} of launch "
            f"{self.launch} by {late} cycles, the margin is {margin}; oscillators are off by "
            f"{self.really[0]:g} ppm, jitter is {self.really[1]:g} cycles, the schedule is made "
            f"for {self.holds[0]:g} and {self.holds[1]:g}; lower --drift-ppm or --jitter-cycles, "
            f"or make it for more with --design-drift-ppm"
        )


class MachineError(ClusterError):
    """A machine could not start or lost a worker."""

    def __init__(self, machine: str, problem: str, advice: str = "") -> None:
        super().__init__(machine, problem, advice)
        self.machine, self.problem, self.advice = machine, problem, advice

    def message(self) -> str:
        """Return what went wrong and what to do."""
        text = f"machine {self.machine}: {self.problem}"
        return text + (f"; {self.advice}" if self.advice else "")


class WorkerLost(MachineError):
    """A worker, its host or the way to it is gone; the machine can be revived."""


class CheckpointError(ClusterError):
    """A checkpoint is damaged or belongs to another run."""

    def __init__(self, folder: str, problem: str) -> None:
        super().__init__(folder, problem)
        self.folder, self.problem = folder, problem

    def message(self) -> str:
        """Return which checkpoint, and what is wrong with it."""
        return f"checkpoint {self.folder}: {self.problem}"
