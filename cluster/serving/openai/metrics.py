"""Counters and histograms for Prometheus, by the names of vLLM, so that its dashboards fit.

Seconds under vLLM's names are those of the emulated chips; `lpu:` has what is of this host.
"""

from itertools import pairwise

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from cluster.serving.loop import EngineThread
from cluster.serving.openai.answers import Answer

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ABORT = "abort"
# From 10 us on: a token of an LPU takes a tenth of a millisecond.
SECONDS = tuple(one * 10.0**power for power in range(-5, 2) for one in (1, 2.5, 5))
TOKENS = tuple(float(1 << power) for power in range(18))
HISTOGRAMS = {
    "time_to_first_token_seconds": "From arrival to the first token",
    "time_per_output_token_seconds": "Mean of a request between two tokens",
    "inter_token_latency_seconds": "Between two tokens",
    "e2e_request_latency_seconds": "From arrival to the last token",
    "request_queue_time_seconds": "From arrival to a slot",
    "request_prefill_time_seconds": "From a slot to the first token",
    "request_decode_time_seconds": "From the first token to the last",
}


class Metrics:
    """What a server counts; answers are looked at when they have ended."""

    def __init__(self, model: str, engine: EngineThread | None) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        self.registry.register(_Gauges(model, engine))
        self._seconds = {
            name: Histogram(
                f"vllm:{name}", f"{about}, in emulated seconds.", ["model_name"],
                registry=self.registry, buckets=SECONDS,
            ).labels(model)
            for name, about in HISTOGRAMS.items()
        }  # fmt: skip
        self._prompt, self._generated = (
            Counter(f"vllm:{what}_tokens", f"Tokens of {of}.", ["model_name"],
                    registry=self.registry).labels(model)
            for what, of in (("prompt", "prompts"), ("generation", "answers"))
        )  # fmt: skip
        self._lengths = {
            what: Histogram(
                f"vllm:request_{what}_tokens", f"Tokens of {of}.", ["model_name"],
                registry=self.registry, buckets=TOKENS,
            ).labels(model)
            for what, of in (("prompt", "a prompt"), ("generation", "an answer"))
        }  # fmt: skip
        self._success = Counter(
            "vllm:request_success", "Answers that have ended, by why.",
            ["model_name", "finished_reason"], registry=self.registry,
        )  # fmt: skip
        self._responses = Counter(
            "lpu:http_responses", "Responses by path and status; 499 are clients that hung up.",
            ["path", "status"], registry=self.registry,
        )  # fmt: skip
        self._wall = Histogram(
            "lpu:http_response_seconds", "From a request to the end of its response, on the wall.",
            ["path"], registry=self.registry, buckets=SECONDS,
        )  # fmt: skip

    def answered(self, answer: Answer) -> None:
        """Count an answer that has ended, or was broken off."""
        request, times = answer.job.request, answer.token_s
        self._success.labels(self._model, answer.finish or ABORT).inc()
        if not times:
            return
        for what, tokens in (("prompt", answer.prompt.ids), ("generation", answer.tokens)):
            self._lengths[what].observe(len(tokens))
        self._prompt.inc(len(answer.prompt.ids))
        self._generated.inc(len(answer.tokens))
        found = {
            "time_to_first_token_seconds": times[0] - request.arrives_s,
            "e2e_request_latency_seconds": times[-1] - request.arrives_s,
            "request_queue_time_seconds": answer.queue_s,
            "request_prefill_time_seconds": answer.prompt_s,
            "request_decode_time_seconds": answer.completion_s,
        }
        for name, seconds in found.items():
            self._seconds[name].observe(seconds)
        if len(times) > 1:
            mean_s = answer.completion_s / (len(times) - 1)
            self._seconds["time_per_output_token_seconds"].observe(mean_s)
        for before, after in pairwise(times):
            self._seconds["inter_token_latency_seconds"].observe(after - before)

    def responded(self, path: str, status: int, wall_s: float) -> None:
        """Count a response."""
        self._responses.labels(path, str(status)).inc()
        self._wall.labels(path).observe(wall_s)

    def text(self) -> bytes:
        """Return everything as Prometheus reads it."""
        return generate_latest(self.registry)


class _Gauges(Collector):
    """What is so just now."""

    def __init__(self, model: str, engine: EngineThread | None) -> None:
        self._model, self._engine = model, engine

    def collect(self) -> list[GaugeMetricFamily]:
        """Return how many requests run and wait, and what share of the slots is taken."""
        if self._engine is None:
            return []
        running, everyone = self._engine.running, len(self._engine.active)
        found = {
            "num_requests_running": ("Requests that have a slot.", running),
            "num_requests_waiting": ("Requests that wait for a slot.", everyone - running),
            "kv_cache_usage_perc": (
                "Share of the slots, each with caches of its own, that are taken.",
                running / self._engine.slots,
            ),
        }
        families = []
        for name, (about, value) in found.items():
            family = GaugeMetricFamily(f"vllm:{name}", about, labels=["model_name"])
            family.add_metric([self._model], value)
            families.append(family)
        return families
