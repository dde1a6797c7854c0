"""Requests over time: arrivals and lengths, read from a trace or drawn at random."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cluster.errors import BadValue

Numbers = npt.NDArray[np.int64]
Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Traffic:
    """Requests in order of arrival: `arrives_s` [n], `prompt` [n] and `new` [n] tokens.

    Request r has the prefix hashes from `first_block[r]` on, `blocks[r]` of them, each of
    `block_tokens` tokens and all before them. With `users`, so many requests are under way at a
    time, and the next one arrives when one has ended; arrivals beyond the first are not known.
    """

    arrives_s: Seconds
    prompt: Numbers
    new: Numbers
    hashes: Numbers
    first_block: Numbers
    blocks: Numbers
    block_tokens: int = 0
    users: int = 0
    dropped: int = 0  # records without an answer: nothing to serve

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def tokens(self) -> Numbers:
        """What each needs of a cache."""
        return self.prompt + self.new - 1

    @property
    def rate(self) -> float:
        """Requests per second; 0 where that is not known beforehand."""
        span_s = float(self.arrives_s[-1] - self.arrives_s[0]) if len(self) > 1 else 0.0
        return (len(self) - 1) / span_s if span_s and not self.users else 0.0

    def at_rate(self, rate: float) -> "Traffic":
        """The same requests, closer together or further apart."""
        return replace(self, arrives_s=self.arrives_s * (self.rate / rate))

    def within(self, context: int) -> "Traffic":
        """Those that caches of `context` tokens hold."""
        fits = self.tokens <= context
        return replace(
            self, arrives_s=self.arrives_s[fits], prompt=self.prompt[fits], new=self.new[fits],
            first_block=self.first_block[fits], blocks=self.blocks[fits],
        )  # fmt: skip


def traffic(
    arrives_s: Sequence[float] | Seconds, prompt: Sequence[int] | Numbers,
    new: Sequence[int] | Numbers, users: int = 0,
) -> Traffic:  # fmt: skip
    """Requests without prefix hashes, put in order of arrival."""
    none = np.zeros(len(prompt), np.int64)
    found = Traffic(
        np.asarray(arrives_s, np.float64), np.asarray(prompt, np.int64),
        np.asarray(new, np.int64), np.zeros(1, np.int64), none, none, users=users,
    )  # fmt: skip
    return in_order(found)


def in_order(given: Traffic) -> Traffic:
    """By arrival, the first at second 0."""
    order = np.argsort(given.arrives_s, kind="stable")
    arrives_s = given.arrives_s[order]
    return replace(
        given, arrives_s=arrives_s - (arrives_s[0] if len(order) else 0.0),
        prompt=given.prompt[order], new=given.new[order],
        first_block=given.first_block[order], blocks=given.blocks[order],
    )  # fmt: skip


# --- loads ----------------------------------------------------------------------------------------
def load(text: str, lengths: Traffic, seed: int) -> Traffic:
    """Arrivals of `poisson:RATE`, `gamma:RATE:CV` or `closed:USERS` for requests of these lengths.

    RATE is in requests per second, CV the standard deviation of the gaps over their mean.
    """
    name, *numbers = text.split(":")
    count, random = len(lengths), np.random.default_rng(seed)
    if name == "closed":
        (users,) = _numbers(text, numbers, 1)
        if users != int(users):
            raise BadValue("--load", text, "USERS is a whole number")
        arrives_s = np.zeros(count)
        return replace(lengths, arrives_s=arrives_s, users=min(int(users), count))
    if name == "poisson":
        (rate,) = _numbers(text, numbers, 1)
        gaps_s = random.exponential(1 / rate, count)
    elif name == "gamma":
        rate, cv = _numbers(text, numbers, 2)
        gaps_s = random.gamma(1 / cv**2, cv**2 / rate, count)
    else:
        raise BadValue("--load", text, "is none of poisson:RATE, gamma:RATE:CV, closed:USERS")
    return in_order(replace(lengths, arrives_s=np.cumsum(gaps_s)))


def _numbers(text: str, numbers: Sequence[str], count: int) -> list[float]:
    try:
        found = [float(number) for number in numbers]
    except ValueError:
        found = []
    if len(found) != count or not all(1e-9 <= number <= 1e9 for number in found):
        raise BadValue("--load", text, "write poisson:RATE, gamma:RATE:CV or closed:USERS, "
                       "in numbers above 0")  # fmt: skip
    return found


def lengths_of(text: str, count: int, seed: int) -> Traffic:
    """`IN:OUT` tokens for so many requests; `~IN:~OUT` are means of exponential distributions."""
    random = np.random.default_rng([seed, 1])
    parts = text.split(":")
    if len(parts) != 2:
        raise BadValue("--lengths", text, "write IN:OUT in tokens, ~IN:~OUT for means, or trace")
    prompt, new = (_lengths(text, part, count, random) for part in parts)
    return traffic(np.zeros(count), prompt, new)


def _lengths(text: str, part: str, count: int, random: np.random.Generator) -> Numbers:
    mean = part.removeprefix("~")
    if not (mean.isdecimal() and 1 <= int(mean) <= 1 << 24):
        raise BadValue("--lengths", text, "IN and OUT are 1 to 16777216 tokens")
    if mean == part:
        return np.full(count, int(mean), np.int64)
    return np.maximum(1, np.rint(random.exponential(int(mean), count))).astype(np.int64)
