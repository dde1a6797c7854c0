"""What the figures of a row mean to a person: words, units, and which way is better."""

from dataclasses import dataclass
from typing import Any

from cluster.sweeps.evaluation import Row


@dataclass(frozen=True)
class Figure:
    """A figure of rows: how it is called, whether more of it is better, a factor to its unit."""

    name: str
    unit: str
    more: bool = True
    factor: float = 1.0

    @property
    def label(self) -> str:
        """For axes of plots."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    def said(self, value: float) -> str:
        """A value in a sentence."""
        text = number(value * self.factor)
        return f"{text} {self.unit}" if self.unit else text


FIGURES = {
    "tokens_per_s_per_user": Figure("speed", "tokens/s per user"),
    "tokens_per_s_total": Figure("speed of all users", "tokens/s in all"),
    "cycles_per_token": Figure("cycles", "cycles per token", more=False),
    "interval_cycles": Figure("interval", "cycles between tokens", more=False),
    "prefill_cycles": Figure("prefill", "cycles of prefill", more=False),
    "time_to_first_token_s": Figure("time to the first token", "ms to the first token", False, 1e3),
    "joules_per_token": Figure("energy", "J per token", more=False),
    "joules_per_token_busy": Figure("energy, all stages busy", "J per token", more=False),
    "chips_used": Figure("chips", "chips", more=False),
    "hops": Figure("hops", "hops", more=False),
    "sram_bytes_max": Figure("SRAM", "MiB of SRAM", False, 1 / 2**20),
    "goodput_requests_per_s": Figure("goodput", "requests/s"),
    "requests_per_s": Figure("throughput", "requests/s in all"),
    "output_tokens_per_s": Figure("output", "output tokens/s"),
    "ttft_s_p50": Figure("median time to the first token", "ms TTFT p50", False, 1e3),
    "ttft_s_p99": Figure("99th percentile of the time to the first token", "ms TTFT p99",
                         False, 1e3),
    "tpot_s_p50": Figure("median time per output token", "ms TPOT p50", False, 1e3),
    "tpot_s_p99": Figure("99th percentile of the time per output token", "ms TPOT p99",
                         False, 1e3),
    "with_gpus_tokens_per_s_per_user": Figure("speed with GPUs", "tokens/s per user with GPUs"),
    "with_gpus_time_to_first_token_s": Figure("time to the first token with GPUs",
                                              "ms to the first token with GPUs", False, 1e3),
    "with_gpus_tokens_per_s_per_mw": Figure("output of a megawatt with GPUs",
                                            "tokens/s per MW with GPUs"),
    "lpus_tokens_per_s_per_mw": Figure("output of a megawatt without GPUs",
                                       "tokens/s per MW without GPUs"),
    "with_gpus_joules_per_token": Figure("energy with GPUs", "J per token with GPUs", more=False),
    "host_tokens_per_s": Figure("speed of this host", "tokens/s on the host"),
}  # fmt: skip
SPEED, SPEED_IN_ALL, ENERGY = "tokens_per_s_per_user", "tokens_per_s_total", "joules_per_token"
CHIPS, GOODPUT = "chips_used", "goodput_requests_per_s"


def figure(name: str) -> Figure:
    """A figure by its key; one that nobody has described goes by its key, more being better."""
    return FIGURES.get(name, Figure(name.replace("_", " "), ""))


def number(value: float) -> str:
    """Four digits, as people write them.

    >>> number(755.13), number(12345.6), number(0.012345), number(120.0)
    ('755.1', '12,346', '0.01235', '120')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def value_of(row: Row, name: str) -> float | None:
    """A figure of a row; None where it has none."""
    found: Any = row.get(name)
    usable = isinstance(found, int | float) and not isinstance(found, bool)
    return float(found) if usable else None


def setting(row: Row, name: str) -> str:
    """A setting of a row as text; what nobody has set is "default", or "none" of faults."""
    found = row.get(name, "none" if name == "faults" else "default")
    return found if isinstance(found, str) else str(found)
