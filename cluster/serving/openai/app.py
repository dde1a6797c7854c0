"""The routes: chat, completions, embeddings, models, health and metrics."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cluster.errors import ClusterError
from cluster.serving.loop import EngineThread
from cluster.serving.openai.answers import SEEDS, Answers, Prompt, Served
from cluster.serving.openai.embeddings import Embedder, embeddings
from cluster.serving.openai.errors import GONE, ApiError, wrong_body
from cluster.serving.openai.forms import ChatForm, CompletionForm, Form
from cluster.serving.openai.gate import Gate
from cluster.serving.openai.metrics import CONTENT_TYPE, Metrics
from cluster.serving.openai.schemas import (
    Body,
    ChatBody,
    CompletionBody,
    EmbeddingBody,
    Generation,
)

PREFIXES = ("/v1", "/openai/v1")  # OpenAI's clients are told the whole of it, Groq's add their own
COMPLETION_TOKENS = 16  # of a completion that says nothing of it, as in OpenAI's API
SSE = {"cache-control": "no-cache", "x-accel-buffering": "no"}
B = TypeVar("B", bound=Body)
Text = str | Sequence[int]


class Api:
    """Answers requests for one decoder, for one encoder, or for both."""

    def __init__(
        self, served: Served | None, engine: EngineThread | None, embedder: Embedder | None
    ) -> None:
        self._served, self._engine, self._embedder = served, engine, embedder
        name = served.name if served else embedder.name if embedder else ""
        self.metrics = Metrics(name, engine)

    # --- text ---------------------------------------------------------------------------------
    async def chat(self, request: Request) -> Response:
        """Answer the messages of a chat."""
        body = await read(request, ChatBody)
        served, engine = self._decoder(body.model)
        prompt = await asyncio.to_thread(self._chat_prompt, served, body)
        most = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
        answers = Answers(engine, served, body, _seed(body))
        answers.start([prompt], most, body.likeliest)
        return await self._respond(request, body, answers, ChatForm(body.model, served.tokenizer))

    async def completions(self, request: Request) -> Response:
        """Go on with texts as they stand."""
        body = await read(request, CompletionBody)
        served, engine = self._decoder(body.model)
        prompts = [await asyncio.to_thread(_prompt, served, one) for one in body.prompts]
        if not prompts:
            raise ApiError(422, "prompt: is empty", "prompt", "invalid_value")
        echo, wanted = bool(body.echo), body.logprobs is not None
        most = COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens
        if body.max_tokens is None:
            room = served.context + 1 - max(len(one.ids) for one in prompts)
            most = max(1, min(most, room))
        answers = Answers(engine, served, body, _seed(body))
        answers.start(prompts, most, body.logprobs, echo)
        form = CompletionForm(body.model, served.tokenizer, echo, wanted)
        return await self._respond(request, body, answers, form)

    def _chat_prompt(self, served: Served, body: ChatBody) -> Prompt:
        messages = [message.for_template() for message in body.messages]
        try:
            ids = served.tokenizer.encode_chat(messages, body.tools or None)
            said = served.tokenizer.encode(body.messages[-1].text)
        except ClusterError as error:
            raise ApiError(400, str(error), "messages", "invalid_value") from None
        return Prompt(tuple(ids), "", tuple(said))

    async def _respond(
        self, request: Request, body: Generation, answers: Answers, form: Form
    ) -> Response:
        if body.stream:
            chunks = self._chunks(answers, form, body.include_usage)
            return _Stream(chunks, lambda: self._end(answers))
        try:
            if not await _unless_gone(request, self._collect(answers)):
                return Response(status_code=GONE)
            return JSONResponse(form.whole(answers.answers))
        finally:
            self._end(answers)

    async def _collect(self, answers: Answers) -> None:
        async for _ in answers.pieces():
            pass

    async def _chunks(self, answers: Answers, form: Form, usage: bool) -> AsyncIterator[str]:
        """The events of a stream; an error that comes later than its headers is one, too."""
        last = {"usage": None} if usage else {}
        try:
            for first in form.first_chunks(answers.answers):
                yield _event(first | last)
            async for piece in answers.pieces():
                done = all(answer.finish for answer in answers.answers)
                if piece.text or piece.tokens or piece.finish:
                    shown = answers.answers if done and piece.finish else ()
                    yield _event(form.chunk(piece, shown) | last)
            if usage:
                yield _event(form.usage_chunk(answers.answers))
            yield "data: [DONE]\n\n"
        except ApiError as error:
            yield f"data: {bytes(error.response().body).decode()}\n\n"

    def _end(self, answers: Answers) -> None:
        answers.close()
        for answer in answers.answers:
            self.metrics.answered(answer)

    # --- the rest -----------------------------------------------------------------------------
    async def embeddings(self, request: Request) -> Response:
        """Embed texts."""
        body = await read(request, EmbeddingBody)
        if self._embedder is None or body.model.lower() not in self._embedder.names:
            raise self._no_model(body.model)
        found = asyncio.ensure_future(asyncio.to_thread(embeddings, self._embedder, body))
        return JSONResponse(await found)

    async def models(self, request: Request) -> Response:
        """List what is served, or show one of it."""
        every = self._models()
        name = request.path_params.get("name")
        if name is None:
            return JSONResponse({"object": "list", "data": list(every.values())})
        for model in (self._served, self._embedder):
            if model and name.lower() in model.names:
                return JSONResponse(every[model.name])
        raise self._no_model(name)

    def _models(self) -> dict[str, dict[str, Any]]:
        return {
            model.name: {
                "id": model.name,
                "object": "model",
                "created": model.created,
                "owned_by": "lpu-emulator",
                "active": True,
                "context_window": model.context,
                "max_model_len": model.context,
            }
            for model in (self._served, self._embedder)
            if model
        }

    async def health(self, _: Request) -> Response:
        """Say whether requests are answered."""
        if self._engine and self._engine.broken:
            raise ApiError(503, self._engine.broken)
        return JSONResponse({"status": "ok"})

    async def show_metrics(self, _: Request) -> Response:
        """Say what has been counted."""
        return Response(self.metrics.text(), headers={"content-type": CONTENT_TYPE})

    def _decoder(self, name: str) -> tuple[Served, EngineThread]:
        if self._served is None or self._engine is None or name.lower() not in self._served.names:
            raise self._no_model(name)
        return self._served, self._engine

    def _no_model(self, name: str) -> ApiError:
        said = (
            f"the model '{name[:80]}' is not served for this; there is {', '.join(self._models())}"
        )
        return ApiError(404, said, "model", "model_not_found")


class _Stream(StreamingResponse):
    """Server-sent events; `ended` is called however they end, also where none was sent."""

    def __init__(self, chunks: AsyncIterator[str], ended: Callable[[], None]) -> None:
        super().__init__(chunks, media_type="text/event-stream", headers=SSE)
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended()


def make_app(api: Api, engine: EngineThread | None, key: str | None, body_bytes: int) -> Gate:
    """The whole application; its lifespan is that of the engine's thread."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if engine:
            engine.start()
        yield
        if engine:
            await asyncio.to_thread(engine.close)

    posts: dict[str, Callable[[Request], Any]] = {
        "/chat/completions": api.chat,
        "/completions": api.completions,
        "/embeddings": api.embeddings,
    }
    routes = [Route("/health", api.health), Route("/metrics", api.show_metrics)]
    for prefix in PREFIXES:
        routes += [Route(prefix + path, run, methods=["POST"]) for path, run in posts.items()]
        routes += [Route(f"{prefix}/models", api.models)]
        routes += [Route(f"{prefix}/models/{{name:path}}", api.models)]
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={
            ApiError: _api_error,
            HTTPException: _http_error,
            ClientDisconnect: _gone,
            Exception: _our_error,
        },
    )
    paths = frozenset(route.path for route in routes)
    return Gate(app, paths, key, body_bytes, api.metrics.responded)


async def read(request: Request, form: type[B]) -> B:
    """The body of a request; raises ApiError for one that is no JSON object of that form."""
    try:
        given = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    try:
        return form.model_validate(given)
    except ValidationError as error:
        raise wrong_body(error) from None


def _prompt(served: Served, given: Text) -> Prompt:
    try:
        if isinstance(given, str):
            ids = tuple(served.tokenizer.encode_prompt(given, raw=True))
            return Prompt(ids, given, ids)
        if not given:
            raise ClusterError("the prompt is empty")
        beyond = next((one for one in given if one >= served.vocab), None)
        if beyond is not None:
            raise ClusterError(f"there is no token {beyond}; they are 0 to {served.vocab - 1}")
        return Prompt(tuple(given), served.tokenizer.decode(given), tuple(given))
    except ClusterError as error:
        raise ApiError(400, str(error), "prompt", "invalid_value") from None


def _seed(body: Generation) -> int:
    return secrets.randbelow(SEEDS) if body.seed is None else body.seed % SEEDS


async def _unless_gone(request: Request, work: Any) -> bool:
    """Wait for some work, unless the client hangs up before it is done."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        done: bool = tasks[0].done()
        if done:
            tasks[0].result()
        return done
    finally:
        for task in tasks:
            task.cancel()


def _event(chunk: dict[str, Any]) -> str:
    return f"data: {json.dumps(chunk)}\n\n"


async def _api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {404: f"there is no {request.url.path[:80]}", 405: f"{request.method} is not for this"}
    return ApiError(error.status_code, said.get(error.status_code, error.detail)).response()


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=GONE)


async def _our_error(_: Request, error: Exception) -> Response:
    return ApiError(500, f"internal error: {type(error).__name__}: {error}").response()
