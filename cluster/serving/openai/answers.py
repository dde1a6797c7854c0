"""The answers to one HTTP request: jobs of the engine, and their text piece by piece."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from cluster.errors import ClusterError
from cluster.generation.logprobs import Logprobs
from cluster.generation.sampling import Sampling
from cluster.model.load import Stream, Tokenizer
from cluster.runs.answers import LENGTH, STOP
from cluster.serving.engine import Choosing
from cluster.serving.loop import Delivery, EngineThread, Job, QueueFull
from cluster.serving.openai.errors import ApiError, queue_full
from cluster.serving.openai.schemas import Generation
from cluster.serving.openai.text import StopText
from cluster.serving.requests import Request

TEMPERATURE = 1.0  # of requests that say nothing of it, as in OpenAI's API
SEEDS = 2**63


@dataclass(frozen=True)
class Served:
    """The model that is served: `name` is listed, all of `names` are heard."""

    name: str
    names: frozenset[str]
    tokenizer: Tokenizer
    vocab: int
    context: int  # tokens of prompt and answer but for the last
    created: int


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt as ids; `text` is what it was said in, `said` the part that an echo repeats."""

    ids: tuple[int, ...]
    text: str
    said: tuple[int, ...] = ()


@dataclass(frozen=True)
class SpokenToken:
    """A token of an answer or of its prompt; the first of a prompt has no probability."""

    id: int
    logprobs: Logprobs | None


@dataclass(frozen=True)
class Piece:
    """What became known of an answer: text, the tokens that it has come with, why it ended."""

    answer: "Answer"
    text: str
    tokens: tuple[SpokenToken, ...] = ()
    finish: str | None = None
    prompt: tuple[Logprobs, ...] = ()


@dataclass(eq=False)
class Answer:
    """One choice of one prompt. `wanted` is 0 where only the prompt is to be looked at."""

    index: int
    prompt: Prompt
    job: Job
    stream: Stream
    stop: StopText
    wanted: int
    text: str = ""
    tokens: list[SpokenToken] = field(default_factory=list)
    token_s: list[float] = field(default_factory=list)
    prompt_logprobs: tuple[Logprobs, ...] = ()
    finish: str | None = None

    def take(self, delivery: Delivery, stop: frozenset[int]) -> Piece:
        """What a delivery adds; raises ApiError if it says that there is no more."""
        if delivery.token is None:
            raise ApiError(503 if delivery.error else 500, delivery.error or "cancelled")
        self.token_s.append(delivery.at_s)
        self.prompt_logprobs = self.prompt_logprobs or delivery.prompt
        if not self.wanted:
            self.finish = LENGTH
            return Piece(self, "", (), LENGTH, delivery.prompt)
        token = SpokenToken(delivery.token, delivery.logprobs)
        self.tokens.append(token)
        ended = delivery.last and delivery.token in stop
        text = self.stop.push(self.stream.finish() if ended else self.stream.push(delivery.token))
        if delivery.last and not self.stop.stopped:
            if not ended:
                text += self.stop.push(self.stream.finish())
            text += self.stop.finish()
        if self.stop.stopped or ended:
            self.finish = STOP
        elif delivery.last:
            self.finish = LENGTH
        self.text += text
        return Piece(self, text, (token,), self.finish, delivery.prompt)

    # --- emulated seconds -------------------------------------------------------------------
    @property
    def queue_s(self) -> float:
        """From its arrival to its slot."""
        return self.job.request.entered_s - self.job.request.arrives_s

    @property
    def prompt_s(self) -> float:
        """From its slot to its first token."""
        return self.token_s[0] - self.job.request.entered_s

    @property
    def completion_s(self) -> float:
        """From its first token to its last."""
        return self.token_s[-1] - self.token_s[0]


class Answers:
    """All answers to one HTTP request; whoever makes them must `close` them."""

    def __init__(self, engine: EngineThread, served: Served, body: Generation, seed: int) -> None:
        self._engine, self._served, self._body, self._seed = engine, served, body, seed
        self._queue: asyncio.Queue[Delivery] = asyncio.Queue()
        self._open: dict[Job, Answer] = {}
        self.answers: list[Answer] = []

    def start(
        self, prompts: Sequence[Prompt], most: int | None, likeliest: int | None, echo: bool = False
    ) -> None:
        """Submit `n` jobs for each prompt; raises ApiError where that cannot be."""
        count, most_at_once = len(prompts) * (self._body.n or 1), self._engine.most
        if count > most_at_once:
            said = f"{count} answers at a time, the slots and the queue hold {most_at_once}"
            raise ApiError(400, said, "n", "invalid_value")
        for prompt in prompts:
            for _ in range(self._body.n or 1):
                job, wanted = self._job(prompt, most, likeliest, echo)
                stream, stop = self._served.tokenizer.stream(), StopText(self._body.stops)
                answer = Answer(len(self.answers), prompt, job, stream, stop, wanted)
                self.answers.append(answer)
        try:
            self._engine.submit([answer.job for answer in self.answers])
        except QueueFull as error:
            raise queue_full(error) from None
        except ClusterError as error:
            raise ApiError(503, str(error)) from None
        self._open = {answer.job: answer for answer in self.answers}

    def _job(
        self, prompt: Prompt, most: int | None, likeliest: int | None, echo: bool
    ) -> tuple[Job, int]:
        body, count = self._body, len(prompt.ids)
        room = self._served.context + 1 - count
        wanted = room if most is None else most
        if room < 1 or wanted > room:
            said = f"{wanted} in the answer" if room >= 1 else "an answer of one at least"
            message = (
                f"the context is {self._served.context} tokens; this is {count} in the prompt and "
                f"{said}; shorten it, or serve with a longer --context"
            )
            raise ApiError(400, message, "max_tokens" if room >= 1 else None,
                           "context_length_exceeded")  # fmt: skip
        seed = (self._seed + len(self.answers)) % SEEDS
        temperature = TEMPERATURE if body.temperature is None else body.temperature
        sampling = Sampling(temperature, 1.0 if body.top_p is None else body.top_p, seed)
        stop = frozenset[int]() if body.ignore_eos else self._served.tokenizer.stop
        how = sampling.pick, stop, body.min_tokens or 0, likeliest
        choosing = Choosing(*how, said=prompt.said, seed=seed)
        looked_at = echo and likeliest is not None
        request = Request(prompt.ids, max(1, wanted), prompt_logits=looked_at)
        return Job(request, choosing, self._queue.put_nowait), wanted

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield what becomes known, until all have ended; raises ApiError where one cannot."""
        while self._open:
            delivery = await self._queue.get()
            answer = self._open.get(delivery.job)
            if answer is None:  # what came behind a stop text
                continue
            piece = answer.take(delivery, answer.job.choosing.stop)
            if answer.finish:
                del self._open[delivery.job]
                if not delivery.last:
                    self._engine.cancel(delivery.job)
            yield piece

    def close(self) -> bool:
        """End what has not ended; returns whether there was any."""
        for job in self._open:
            self._engine.cancel(job)
        unfinished = bool(self._open)
        self._open = {}
        return unfinished
