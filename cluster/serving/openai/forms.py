"""Answers as JSON objects: those of chat and of completions, whole or as chunks of a stream."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cluster.generation.logprobs import TokenLogprob
from cluster.model.load import Tokenizer
from cluster.serving.openai.answers import Answer, Piece, SpokenToken

Json = dict[str, Any]


def usage(answers: Sequence[Answer]) -> Json:
    """Tokens, and Groq's times in seconds of the emulated chips.

    `total_time` is, as there, without `queue_time`. Of several answers the times are those of all.
    """
    prompts = {answer.prompt: answer.job.request for answer in reversed(answers)}  # by its first
    prompt_tokens = sum(len(prompt.ids) for prompt in prompts)
    completion_tokens = sum(len(answer.tokens) for answer in answers)
    entered_s = min(answer.job.request.entered_s for answer in answers)
    first_s = min(answer.token_s[0] for answer in answers)
    last_s = max(answer.token_s[-1] for answer in answers)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": sum(request.cached_tokens for request in prompts.values())
        },
        "queue_time": entered_s - answers[0].job.request.arrives_s,
        "prompt_time": first_s - entered_s,
        "completion_time": last_s - first_s,
        "total_time": last_s - entered_s,
        "emulated": True,
    }


@dataclass
class Form:
    """What all objects of one response have in common."""

    kind: str  # the field `object` of a whole answer
    chunk_kind: str
    model: str
    tokenizer: Tokenizer
    id: str
    groq_id: str = field(default_factory=lambda: f"req_{uuid.uuid4().hex[:26]}")
    created: int = field(default_factory=lambda: int(time.time()))
    begun: bool = False  # whether a chunk has said the id of the request

    def _object(self, kind: str, choices: list[Json]) -> Json:
        said = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return {**said, "system_fingerprint": "lpu-emulator", "choices": choices}

    def whole(self, answers: Sequence[Answer]) -> Json:
        """The response that is no stream."""
        found = self._object(self.kind, [self.choice(answer) for answer in answers])
        return found | {"usage": usage(answers), "x_groq": {"id": self.groq_id}}

    def first_chunks(self, answers: Sequence[Answer]) -> list[Json]:
        """What a stream begins with."""
        return []

    def chunk(self, piece: Piece, done: Sequence[Answer]) -> Json:
        """What a piece adds; with the last, `done` are all answers."""
        found = self._object(self.chunk_kind, [self.chunk_choice(piece)])
        return found | self._groq(done)

    def usage_chunk(self, answers: Sequence[Answer]) -> Json:
        """The chunk behind all others, if it is asked for."""
        return self._object(self.chunk_kind, []) | {"usage": usage(answers)} | self._groq(answers)

    def _groq(self, done: Sequence[Answer]) -> Json:
        """The first and the last chunks say the id of the request, the last what it took."""
        first, self.begun = not self.begun, True
        if done:
            return {"x_groq": {"id": self.groq_id, "usage": usage(done)}}
        return {"x_groq": {"id": self.groq_id}} if first else {}

    def choice(self, answer: Answer) -> Json:
        """A whole answer."""
        raise NotImplementedError

    def chunk_choice(self, piece: Piece) -> Json:
        """A piece of one."""
        raise NotImplementedError


class ChatForm(Form):
    """POST /v1/chat/completions."""

    def __init__(self, model: str, tokenizer: Tokenizer) -> None:
        kind = "chat.completion"
        name = f"chatcmpl-{uuid.uuid4().hex[:24]}"
        super().__init__(kind, f"{kind}.chunk", model, tokenizer, name)

    def choice(self, answer: Answer) -> Json:
        """A whole answer."""
        return {
            "index": answer.index,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": self._logprobs(answer.tokens),
            "finish_reason": answer.finish,
        }

    def first_chunks(self, answers: Sequence[Answer]) -> list[Json]:
        """Who speaks."""
        delta = {"role": "assistant", "content": ""}
        rest = {"delta": delta, "logprobs": None, "finish_reason": None}
        found = [
            self._object(self.chunk_kind, [{"index": answer.index, **rest}]) for answer in answers
        ]
        found[0] |= self._groq(())
        return found

    def chunk_choice(self, piece: Piece) -> Json:
        """A piece of one; the last has no content if it adds no text."""
        return {
            "index": piece.answer.index,
            "delta": {} if piece.finish and not piece.text else {"content": piece.text},
            "logprobs": self._logprobs(piece.tokens),
            "finish_reason": piece.finish,
        }

    def _logprobs(self, tokens: Sequence[SpokenToken]) -> Json | None:
        if not any(token.logprobs for token in tokens):
            return None
        content = [
            self._entry(one.logprobs.chosen)
            | {"top_logprobs": [*map(self._entry, one.logprobs.top)]}
            for one in tokens
            if one.logprobs
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: TokenLogprob) -> Json:
        text, spelled = (
            self.tokenizer.token_text(token.id),
            self.tokenizer.token_bytes(token.id),
        )
        return {"token": text, "logprob": token.logprob, "bytes": list(spelled)}


class CompletionForm(Form):
    """POST /v1/completions; with `echo` a text begins with its prompt."""

    def __init__(self, model: str, tokenizer: Tokenizer, echo: bool, logprobs: bool) -> None:
        kind, name = "text_completion", f"cmpl-{uuid.uuid4().hex[:24]}"
        super().__init__(kind, kind, model, tokenizer, name)
        self._echo, self._wanted = echo, logprobs
        self._offset: dict[Answer, int] = {}

    def choice(self, answer: Answer) -> Json:
        """A whole answer."""
        text, tokens = answer.text, tuple(answer.tokens)
        return self._choice(
            Piece(answer, text, tokens, answer.finish, answer.prompt_logprobs), True
        )

    def chunk_choice(self, piece: Piece) -> Json:
        """A piece of one."""
        return self._choice(piece, len(piece.answer.token_s) == 1)

    def _choice(self, piece: Piece, first: bool) -> Json:
        answer = piece.answer
        echoed = first and self._echo
        prompt = answer.prompt.text if echoed else ""
        tokens = piece.tokens
        if echoed:
            known = zip(answer.prompt.ids, (None, *piece.prompt), strict=False)
            tokens = (*(SpokenToken(*one) for one in known), *tokens)
        return {
            "index": answer.index,
            "text": prompt + piece.text,
            "logprobs": self._logprobs(answer, tokens) if self._wanted else None,
            "finish_reason": piece.finish,
        }

    def _logprobs(self, answer: Answer, tokens: Sequence[SpokenToken]) -> Json:
        found: Json = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        at = self._offset.get(answer, 0)
        for one in tokens:
            text = self.tokenizer.token_text(one.id)
            found["tokens"].append(text)
            found["text_offset"].append(at)
            at += len(text)
            if one.logprobs is None:
                found["token_logprobs"].append(None)
                found["top_logprobs"].append(None)
                continue
            chosen, top = one.logprobs.chosen, one.logprobs.top
            found["token_logprobs"].append(chosen.logprob)
            likely: dict[str, float] = {}
            for other in (*top, chosen):  # of tokens that are spelled alike the likeliest
                likely.setdefault(self.tokenizer.token_text(other.id), other.logprob)
            found["top_logprobs"].append(likely)
        self._offset[answer] = at
        return found
