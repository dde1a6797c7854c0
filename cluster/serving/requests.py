"""Requests, and what enters the pipeline of them: rows, and works of rows that go together."""

from dataclasses import dataclass, field

from cluster.compiler.launch import LaunchKind
from cluster.errors import PromptTooLong


@dataclass(frozen=True)
class Row:
    """A token of a sequence in a launch; with `gives` the logits after it are wanted."""

    slot: int
    position: int
    token: int
    gives: bool = False


@dataclass(frozen=True)
class Work:
    """Rows that go through the stages together, and the kind of launch that takes them."""

    kind: LaunchKind
    rows: tuple[Row, ...]

    @property
    def slot(self) -> int:
        """The slot of all its rows, or the first of those of its launch."""
        return self.rows[0].slot - self.kind.row_of(self.rows[0].slot)

    @property
    def gives(self) -> bool:
        """Whether logits are wanted."""
        return any(row.gives for row in self.rows)


Works = tuple[Work | None, ...]  # by stage


@dataclass(eq=False)
class Request:
    """A prompt, and what becomes of it; seconds are those of the run, from its first step on.

    Of those that wait, the highest `priority` goes first, then who has come first.
    """

    prompt: tuple[int, ...]
    max_new_tokens: int
    arrives_s: float = 0.0
    position: int = 0  # tokens that are in the caches already
    priority: int = 0
    number: int = -1  # in order of submission
    slot: int = -1
    tokens: list[int] = field(default_factory=list)
    token_s: list[float] = field(default_factory=list)
    entered_s: float = 0.0
    cached_tokens: int = 0  # of the prompt, that were in the caches when it came
    cancelled: bool = False
    prompt_logits: bool = False  # whether the logits after each token of the prompt are wanted
    index: int = field(default=-1, repr=False)  # of its row in the scheduler's columns

    def check(self, context: int) -> "Request":
        """Return self; raises PromptTooLong if caches of `context` tokens do not hold it."""
        if not self.prompt or len(self.prompt) + self.max_new_tokens > context + 1:
            raise PromptTooLong(len(self.prompt), self.max_new_tokens, context)
        return self

    def token_at(self, position: int) -> int:
        """The token at a position of its sequence."""
        beyond = position - len(self.prompt)
        return self.prompt[position] if beyond < 0 else self.tokens[beyond]

    def due(self, row: Row) -> bool:
        """Whether a token of ours is chosen from the logits of a row."""
        return row.gives and row.position >= len(self.prompt) - 1

    @property
    def first_token_s(self) -> float:
        """Seconds from its entry to its first token."""
        return self.token_s[0] - self.entered_s

    @property
    def tokens_per_s(self) -> float | None:
        """What its user sees after the first token; None if that was all."""
        steps = len(self.tokens) - 1
        return steps / (self.token_s[-1] - self.token_s[0]) if steps else None


@dataclass(frozen=True)
class Step:
    """What the stages do next; `kind` is that of their works but for the context."""

    kind: LaunchKind
    works: Works
