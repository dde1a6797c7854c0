"""How a program ends that may be wrong: through the linker and through the naive interpreter."""

from dataclasses import replace
from random import Random

import numpy as np

from chip.core import Chip
from chip.errors import ChipError, EmptyStream, HazardError, ProgramError
from chip.linker import link
from chip.program import Instruction, Program
from chip.spec import TINY
from chip.wire import pack, unpack
from tests.chip.chaos import INDICES, SPAN
from tests.chip.naive import Misread, OutOfRegion, interpret
from tests.chip.programs import agree, fill, launch, numbers, packets_for

NAIVE = (Misread, OutOfRegion, AssertionError, IndexError)  # how the interpreter stops


class Anything(dict):
    """Packets for any port at any time."""

    def __missing__(self, key):
        return np.zeros(TINY.lanes, np.uint8)


def small_numbers() -> np.ndarray:
    """The test image with small numbers in the slices that hold addresses."""
    image = numbers().copy()
    image[INDICES[0]] %= SPAN
    image[INDICES[1]] = 0
    return image


def outcome(what: Program, image: np.ndarray) -> str:
    """Run a program through both; how it ended. Any disagreement is an AssertionError."""
    try:
        link(unpack(pack(what)))
    except ProgramError:
        return "refused"
    except EmptyStream:
        assert stops(lambda: interpret(pack(what), image, Anything()), *NAIVE)
        return "empty"
    except HazardError:
        return "hazard"
    try:
        agree(what, image)
    except OutOfRegion:
        chip = Chip(what.chip, TINY)
        fill(chip, image, what)
        ready = chip.load("it", pack(what))
        assert stops(lambda: launch(chip, ready, packets_for(ready)), ChipError)
        return "stopped"
    return "ran"


def stops(run, *kinds: type[Exception]) -> bool:
    try:
        run()
    except kinds:
        return True
    return False


def mutated(what: Program, random: Random) -> Program:
    """The program with one operand, loop or instruction changed, dropped, doubled or moved."""
    queue = random.choice(sorted(what.queues))
    held = list(what.queues[queue])
    at = random.randrange(len(held))
    match random.randrange(6):
        case 0:
            del held[at]
        case 1:
            held.insert(random.randrange(len(held)), held[at])
        case 2:
            held.insert(at, Instruction("icu.nop", (random.randrange(1, 4),)))
        case 3:
            held[at] = replace(held[at], loops=(_loop(random), _loop(random)))
        case _ if held[at].args:
            args = list(held[at].args)
            one = random.randrange(len(args))
            args[one] = random.choice([args[one] + 1, args[one] - 1, random.randrange(300)])
            held[at] = replace(held[at], args=tuple(args))
    return replace(what, queues={**what.queues, queue: tuple(held)})


def _loop(random: Random) -> tuple[int, int, int]:
    return random.randint(1, 3), random.randint(0, 4), random.randint(-1, 2)


def damaged(data: bytes, random: Random) -> bytes:
    """The bytes with some of them changed, or cut short."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed[: random.choice([len(changed), random.randrange(len(changed))])])


def survives(data: bytes) -> str:
    """Damaged bytes are one clear error, or a program that is checked like any other."""
    try:
        link(unpack(data))
    except (ProgramError, HazardError) as error:
        assert str(error).partition("\n")[0]
        return "refused"
    return "linked"
