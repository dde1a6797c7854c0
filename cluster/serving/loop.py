"""The thread that owns a machine: requests join and leave between two steps, tokens go out after.

Submissions and cancellations come from one event loop, which the deliveries go back to.
"""

import asyncio
import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from cluster.errors import ClusterError
from cluster.generation.logprobs import Logprobs
from cluster.serving.engine import Choosing, Logits, Scheduler
from cluster.serving.requests import Request

CLOSED = "the server is shutting down"


class Runner(Protocol):
    """What takes requests through steps: `PipelineRunner`, or a clock alone."""

    @property
    def scheduler(self) -> Scheduler:
        """What says which step is next, and when."""

    def submit(self, request: Request, choosing: Choosing) -> None:
        """Take in a request; raises PromptTooLong."""

    def cancel(self, request: Request) -> None:
        """End a request wherever it is."""

    def step(self) -> list[tuple[Request, int]] | None:
        """Run one step; return its tokens, or None if nobody is left."""

    def forget(self, request: Request) -> None:
        """Drop what is kept of a request that has ended."""

    def logprobs_of(self, request: Request) -> list[Logprobs]:
        """How likely each token so far was, if that was asked for."""

    def prompt_logprobs_of(self, request: Request) -> list[Logprobs]:
        """How likely each token of the prompt was, if that was asked for."""


@dataclass(frozen=True)
class Delivery:
    """A token of a job, or why there will be none; `at_s` is emulated.

    `prompt` are the logprobs of its prompt, with the first token, if they were asked for.
    """

    job: "Job"
    token: int | None = None
    at_s: float = 0.0
    logprobs: Logprobs | None = None
    prompt: tuple[Logprobs, ...] = ()
    last: bool = True
    error: str | None = None


@dataclass(eq=False)
class Job:
    """A request with how to choose its tokens and where to deliver them, in the event loop."""

    request: Request
    choosing: Choosing
    deliver: Callable[[Delivery], None]
    failure: str | None = None
    delivered: int = 0
    since: float = field(default_factory=time.monotonic)

    @property
    def runs(self) -> bool:
        """Whether it has a slot."""
        return self.request.slot >= 0


class QueueFull(ClusterError):
    """More requests wait than the server lets wait."""

    def __init__(self, waiting: int, limit: int, retry_s: int) -> None:
        super().__init__(waiting, limit, retry_s)
        self.waiting, self.limit, self.retry_s = waiting, limit, retry_s

    def message(self) -> str:
        """Return how many wait, and when to come back."""
        return (
            f"{self.waiting} requests wait, the queue holds {self.limit}; "
            f"try again in {self.retry_s} s"
        )


class VirtualClock:
    """Emulated seconds beside those of the wall, `speed` to one; None: chips set the pace alone.

    Where the host is too slow for that, emulated time waits for it.
    """

    def __init__(self, speed: float | None, wall: Callable[[], float] = time.monotonic) -> None:
        self._speed, self._wall = speed, wall
        self._from_wall, self._from_s = wall(), 0.0

    def now_s(self, done_s: float) -> float:
        """The emulated second that it is, when chips have come to `done_s`."""
        if self._speed is None:
            return done_s
        return max(done_s, self._from_s + (self._wall() - self._from_wall) * self._speed)

    def wait_s(self, done_s: float) -> float:
        """Seconds of the wall until it is `done_s`; the clock is set back if that is over."""
        if self._speed is None:
            return 0.0
        now_s = self.now_s(-math.inf)
        if now_s > done_s:
            self._from_wall, self._from_s = self._wall(), done_s
            return 0.0
        return (done_s - now_s) / self._speed


class EngineThread:
    """Runs steps as long as there are requests; at most `queue_limit` wait for a slot."""

    def __init__(self, runner: Runner, queue_limit: int, speed: float | None = None) -> None:
        self._runner, self._queue_limit = runner, queue_limit
        self._clock = VirtualClock(speed)
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._main, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs: dict[Request, Job] = {}  # of the thread
        self.active: set[Job] = set()  # of the event loop
        self.broken: str | None = None
        self._mean_s = 1.0  # wall seconds of a request, lately

    # --- in the event loop ------------------------------------------------------------------
    def start(self) -> None:
        """Begin; deliveries go to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def slots(self) -> int:
        """Sequences that run at a time."""
        return self._runner.scheduler.slots

    @property
    def most(self) -> int:
        """Requests that it holds at most."""
        return self.slots + self._queue_limit

    @property
    def running(self) -> int:
        """Requests that have a slot."""
        return sum(job.runs for job in self.active)

    def submit(self, jobs: list[Job]) -> None:
        """Take in all of the jobs; raises QueueFull, or ClusterError when it has ended."""
        if self.broken:
            raise ClusterError(self.broken)
        waiting = max(0, len(self.active) + len(jobs) - self.slots)
        if waiting > self._queue_limit:
            retry_s = math.ceil(self._mean_s * max(1, waiting // self.slots))
            raise QueueFull(waiting - len(jobs), self._queue_limit, max(1, min(retry_s, 3600)))
        self.active.update(jobs)
        for job in jobs:
            self._inbox.put(lambda job=job: self._submit(job))  # type: ignore[misc]

    def cancel(self, job: Job) -> None:
        """End a job; its slot comes back before the next step."""
        if job in self.active:
            self._inbox.put(lambda: self._cancel(job))

    def close(self) -> None:
        """End all jobs and the thread, after the step that is under way."""
        self.broken = self.broken or CLOSED
        self._inbox.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _hand_out(self, deliveries: list[Delivery]) -> None:
        for one in deliveries:
            if one.last and one.job in self.active:
                self.active.discard(one.job)
                took_s = time.monotonic() - one.job.since
                self._mean_s += 0.2 * (took_s - self._mean_s)
            one.job.deliver(one)

    # --- in the thread ----------------------------------------------------------------------
    def _main(self) -> None:
        try:
            while self._listen(0.0 if self._jobs else None):
                found = self._runner.step() if self._jobs else []
                if self._pace():
                    self._post(
                        [self._delivery(*one) for one in found or () if one[0] in self._jobs]
                    )
        except Exception as error:  # nobody is served any more: say so, whatever it is
            self.broken = f"the engine has stopped: {type(error).__name__}: {error}"
        reason = self.broken or CLOSED
        self._post([Delivery(job, error=reason) for job in self._jobs.values()])

    def _listen(self, wait_s: float | None) -> bool:
        """Do what has been asked for, waiting for it at most so long; False at the end."""
        try:
            while True:
                asked = self._inbox.get(timeout=wait_s) if wait_s != 0 else self._inbox.get_nowait()
                if asked is None:
                    return False
                asked()
                wait_s = 0.0
        except queue.Empty:
            return True

    def _pace(self) -> bool:
        """Let the wall come to where the chips are; False if that is the end of it."""
        while self._jobs and (wait_s := self._clock.wait_s(self._runner.scheduler.now_s)) > 0:
            if not self._listen(wait_s):
                self._inbox.put(None)
                return False
        return True

    def _submit(self, job: Job) -> None:
        def pick(logits: Logits, step: int) -> int:
            try:
                return job.choosing.pick(logits, step)
            except ClusterError as error:
                job.failure = str(error)
                return 0

        job.request.arrives_s = self._clock.now_s(self._runner.scheduler.now_s)
        try:
            self._runner.submit(job.request, replace(job.choosing, pick=pick))
        except ClusterError as error:
            self._post([Delivery(job, error=str(error))])
        else:
            self._jobs[job.request] = job

    def _cancel(self, job: Job) -> None:
        if job.request in self._jobs:
            self._runner.cancel(job.request)
            self._end(job)
            self._post([Delivery(job)])

    def _end(self, job: Job) -> None:
        del self._jobs[job.request]
        self._runner.forget(job.request)

    def _delivery(self, request: Request, token: int) -> Delivery:
        job = self._jobs[request]
        if job.failure:
            self._runner.cancel(request)
            self._end(job)
            return Delivery(job, error=job.failure)
        at, job.delivered = job.delivered, job.delivered + 1
        last = job.delivered == request.max_new_tokens or job.choosing.ends(token, job.delivered)
        likely = self._runner.logprobs_of(request)
        prompt = () if at else tuple(self._runner.prompt_logprobs_of(request))
        if last:
            self._end(job)
        found = likely[at] if likely else None
        return Delivery(job, token, request.token_s[at], found, prompt, last)

    def _post(self, deliveries: list[Delivery]) -> None:
        assert self._loop is not None
        if deliveries and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._hand_out, deliveries)
