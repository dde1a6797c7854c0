"""All that the scheduler knows, as columns of numbers: lists, or arrays for compiled code.

A request is a row of the columns by request. It waits for its arrival, then for a slot and pages;
in its slot it takes in the tokens that are known of it, in chunks or one by one, and then goes
through the pipeline once for every token. Works stand in *lines*, rings of a place per stage, one
for prefill and one for decode: a step moves one line on by a stage.
"""

from collections.abc import MutableSequence
from typing import NamedTuple

Floats = MutableSequence[float]
Ints = MutableSequence[int]

NOBODY = -1
PREFILL, DECODE = 0, 1  # lines
LATER, WAITING = 0, 1  # heaps of requests
ENDED, QUEUED, SEATED = 0, 1, 2  # what a request is
PREFILL_FIRST, DECODE_FIRST, TOKEN_BUDGET = 0, 1, 2  # policies
NOW, HOST_FREE = 0, 1  # of `clock`: seconds
# of `counts`
USED_PAGES, KEPT_PAGES, SPENT_TOKENS, DROPS, RECOMPUTED, SPILLED, RESTORED, DUE = range(8)
COUNTS = 8


class Rules(NamedTuple):
    """What does not change; `tokens` of a prefix hit are a multiple of `align`."""

    stages: int
    slots: int
    chunk: int  # tokens of a prefill launch; 0: prompts go token by token
    rows: int  # neighbouring slots of a decode launch
    policy: int
    budget_tokens: int  # of prompts between two decode steps, under TOKEN_BUDGET
    beside: int  # 1: the host link works beside the chips, 0: they wait in turns
    page_tokens: int
    pages: int  # of all slots together
    block_tokens: int  # of a hash; 0: prefixes are not reused
    most_blocks: int  # hashes of a request
    align: int
    latency_s: float  # of the host link
    clock_hz: float
    move_s: float  # a token of a cache over the host link; infinite: caches are not spilled


class Requests(NamedTuple):
    """Columns by request."""

    arrives_s: Floats
    prompt: Ints  # tokens
    most: Ints  # new tokens
    priority: Ints  # higher goes first
    number: Ints  # breaks ties, lower goes first
    heard: Ints  # 1: logits after each token of the prompt are wanted
    first_block: Ints  # where its hashes begin
    blocks: Ints  # how many there are
    state: Ints
    position: Ints  # tokens that are in the caches, or on their way there
    made: Ints  # new tokens so far
    flying: Ints  # prefill works of it in the line
    spilled: Ints  # tokens of its caches that rest in the memory of the host
    hit: Ints  # tokens that were in the caches when it came
    slot: Ints
    entered_s: Floats
    ready_s: Floats  # when its next work can enter; infinite while a token is due
    first_s: Floats  # when its first token was at the host
    last_s: Floats


class Slots(NamedTuple):
    """Columns by slot; what is kept is of the last request in it."""

    taken: Ints  # by which request
    free_s: Floats  # since when it is free
    pages: Ints  # held, or kept
    kept_blocks: Ints
    kept_tokens: Ints


class Lines(NamedTuple):
    """Places of one line: stage s at place (head + s) % stages, `rows` requests at each."""

    who: Ints  # requests, by place and row
    at: Ints  # position of the first token of each
    tokens: Ints  # of a work, by place; 0: nobody is there
    bucket: Ints  # context blocks
    gives: Ints  # rows that want logits
    meta: Ints  # head, works that have not come to the end


HEAD, MOVING = 0, 1


class Moves(NamedTuple):
    """Seconds in which a launch's inputs and results cross the host link, by context blocks."""

    into: Floats
    out: Floats


class State(NamedTuple):
    """All that the scheduler knows."""

    rules: Rules
    requests: Requests
    slots: Slots
    prefill: Lines
    decode: Lines
    prefill_moves: Moves
    decode_moves: Moves
    refill_s: Floats  # to take in so many context blocks of tokens again
    later: Ints
    waiting: Ints
    sizes: Ints  # of `later` and `waiting`
    hashes: Ints  # of requests
    kept: Ints  # hashes of slots, `most_blocks` each
    due: Ints  # requests whose tokens are due after a step
    clock: Floats
    counts: Ints
