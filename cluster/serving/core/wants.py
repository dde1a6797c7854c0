"""What a request does next: a chunk of what is known of it, or a token."""

from cluster.compiler.limits import CONTEXT_BLOCK
from cluster.serving.core.columns import (
    DECODE,
    HEARD,
    INTO,
    MADE,
    POSITION,
    PREFILL,
    PROMPT,
    READY,
    State,
)


def known(s: State, r: int) -> int:
    """Tokens of the request that are known: of its prompt, and new ones."""
    return s.requests[PROMPT][r] + s.requests[MADE][r]


def takes_in(s: State, r: int) -> bool:
    """Whether its next work is a chunk; the last token that is known goes alone, for its logits."""
    chunked = s.rules.chunk > 0 and s.requests[HEARD][r] == 0
    return chunked and s.requests[POSITION][r] < known(s, r) - 1


def next_tokens(s: State, r: int) -> int:
    """Tokens of its next work."""
    if not takes_in(s, r):
        return 1
    return min(s.rules.chunk, known(s, r) - 1 - s.requests[POSITION][r])


def blocks_of(tokens: int) -> int:
    """Context blocks that hold so many tokens."""
    return -(-tokens // CONTEXT_BLOCK)


def call(s: State, r: int, at_s: float) -> None:
    """Its next work is known to the host; it can enter when its inputs have come."""
    into = 0.0
    if s.rules.beside:
        bucket = blocks_of(s.requests[POSITION][r] + next_tokens(s, r))
        moves = s.moves[PREFILL if takes_in(s, r) else DECODE]
        into = s.rules.latency_s + moves[INTO][bucket]
    s.times[READY][r] = at_s + into
