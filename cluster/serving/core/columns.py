"""All that the scheduler knows, as columns of numbers: lists, or arrays for compiled code.

A request is a row of the columns by request. It waits for its arrival, then for a slot and pages;
in its slot it takes in the tokens that are known of it, in chunks or one by one, and then goes
through the pipeline once for every token. Works stand in *lines*, rings of a place per stage, one
for prefill and one for decode: a step moves one line on by a stage.

Columns of a kind stand together, each found by its number: compiled code takes the longer to make,
the more arrays it hands on.
"""

from collections.abc import MutableSequence
from typing import Any, NamedTuple

Floats = MutableSequence[float]
Ints = MutableSequence[int]

NOBODY = -1
PREFILL, DECODE = 0, 1  # lines
LATER, WAITING = 0, 1  # heaps of requests: for their arrival, for a slot
ENDED, QUEUED, SEATED = 0, 1, 2  # what a request is
PREFILL_FIRST, DECODE_FIRST, TOKEN_BUDGET = 0, 1, 2  # policies

# Columns by request. NUMBER breaks ties, the lower goes first; the higher PRIORITY does.
PROMPT, MOST, PRIORITY, NUMBER = 0, 1, 2, 3  # tokens of the prompt, new ones at most
HEARD = 4  # 1: logits after each token of the prompt are wanted
FIRST_BLOCK, BLOCKS = 5, 6  # where its hashes begin, and how many there are
STATE, SLOT = 7, 8
POSITION = 9  # tokens that are in the caches, or on their way there
MADE = 10  # new tokens so far
FLYING = 11  # prefill works of it in the line
SPILLED = 12  # tokens of its caches that rest in the memory of the host
HIT = 13  # tokens that were in the caches when it came
REQUEST_INTS = 14
# Seconds by request: READY, when its next work can enter, is infinite while a token is due.
ARRIVES, ENTERED, READY, FIRST, LAST = 0, 1, 2, 3, 4
REQUEST_TIMES = 5
# Columns by slot: who has it, pages held or kept, and what is kept of the last who had it.
TAKEN, PAGES, KEPT_BLOCKS, KEPT_TOKENS = 0, 1, 2, 3
SLOT_INTS = 4
# Columns of a line: stage s is at place (head + s) % stages, with `rows` of WHO and AT at each.
WHO, AT = 0, 1  # requests, and the position of the first token of each
TOKENS, BUCKET, GIVES = 2, 3, 4  # of a work: tokens (0: none), context blocks, rows with logits
LINE_INTS = 5
# Of `moves`, seconds over the host link: inputs of a work where it enters, results, and inputs of
# a work at a further stage, which takes no x.
INTO, OUT, FURTHER = 0, 1, 2
WAYS = 3
NOW, HOST_FREE, STEP = 0, 1, 2  # of `clock`; what the last decode step took
# Columns by transfer of caches: whose, out of or into which slot, how many tokens, and BACK is 1
# for those that come back from the host. Seconds: when it begins and ends.
OWNER, PLACE, MOVED, BACK = 0, 1, 2, 3
TRANSFER_INTS = 4
BEGIN, END = 0, 1
# of `counts`; TRANSFERS are those that are noted, as many as there is room for
USED_PAGES, KEPT_PAGES, SPENT_TOKENS, DROPS, RECOMPUTED, SPILLS, RESTORED, DUE, TRANSFERS = range(9)
COUNTS = 9


class Rules(NamedTuple):
    """What does not change; tokens of a prefix hit are a multiple of `align`."""

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
    whole: int  # 1: a decode goes through all stages in one launch, 0: stage by stage


class State(NamedTuple):
    """All of it."""

    rules: Rules
    requests: MutableSequence[Ints]  # [column][request]
    times: MutableSequence[Floats]  # [column][request]
    slots: MutableSequence[Ints]  # [column][slot]
    free_s: Floats  # since when a slot is free
    lines: MutableSequence[MutableSequence[Ints]]  # [line][column][place]
    heads: Ints  # [line]: the place of stage 0
    moving: Ints  # [line]: works that have not come to the end
    moves: MutableSequence[MutableSequence[Floats]]  # [line][way][context blocks]
    refill_s: Floats  # to take in so many context blocks of tokens again
    heaps: MutableSequence[Ints]  # [heap]
    sizes: Ints  # [heap]
    hashes: Any  # of requests
    kept: Any  # of slots, `most_blocks` each
    due: Ints  # requests whose tokens are due after a step
    transfers: MutableSequence[Ints]  # [column][transfer]
    transfer_s: MutableSequence[Floats]  # [BEGIN or END][transfer]
    clock: Floats
    counts: Ints
