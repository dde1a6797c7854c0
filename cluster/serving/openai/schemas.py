"""What clients may send: the bodies of requests, checked by pydantic.

A parameter that would change an answer and is not supported is refused by name unless it has its
neutral value; those that change no answer are read and ignored.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

UNSUPPORTED = "unsupported_parameter"
TOP = 20  # logprobs of a token, at most
Ids = list[Annotated[int, Field(ge=0)]]
Text = Annotated[str, Field(min_length=1)]

# Parameters of OpenAI, Groq and vLLM that change no answer here.
HARMLESS = {
    "user", "metadata", "store", "service_tier", "parallel_tool_calls", "safety_identifier",
    "prompt_cache_key", "verbosity", "priority", "add_generation_prompt", "skip_special_tokens",
    "spaces_between_special_tokens", "request_id", "return_tokens_as_token_ids",
}  # fmt: skip
# Those that would, and the values with which they do not.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,), "presence_penalty": (0,), "repetition_penalty": (1,),
    "logit_bias": ({},), "top_k": (-1, 0), "min_p": (0,), "use_beam_search": (False,),
    "response_format": ({"type": "text"},), "tool_choice": ("none", "auto"), "functions": ([],),
    "function_call": ("none", "auto"), "modalities": (["text"],), "suffix": ("",), "audio": (),
    "prediction": (), "reasoning_effort": (), "reasoning_format": (), "web_search_options": (),
    "stop_token_ids": ([],), "guided_json": (), "guided_regex": (), "length_penalty": (1,),
    "include_reasoning": (False,), "search_settings": (), "truncate_prompt_tokens": (),
}  # fmt: skip


class Body(BaseModel):
    """A JSON object in which every key has a meaning."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    model: str

    @model_validator(mode="before")
    @classmethod
    def drop_what_changes_nothing(cls, given: Any) -> Any:
        """Take out harmless and neutral parameters; raise ValueError for others by name."""
        if not isinstance(given, dict):
            return given
        kept = {}
        for key, value in given.items():
            if key in cls.model_fields:
                kept[key] = value
            elif key in NEUTRAL:
                if value is not None and value not in NEUTRAL[key]:
                    said = "'{name}' is not supported; leave it out"
                    raise PydanticCustomError(UNSUPPORTED, said, {"name": key})
            elif key not in HARMLESS:
                kept[key] = value
        return kept


class StreamOptions(BaseModel):
    """What a stream holds besides."""

    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool = False


class Generation(Body):
    """What chat and completions have in common."""

    max_tokens: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def check_stream(self) -> "Generation":
        """Raise ValueError for options of a stream without one."""
        if self.stream_options and not self.stream:
            raise ValueError("'stream_options' needs 'stream': true")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(text for text in stop if text)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends in a chunk of usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class Part(BaseModel):
    """A piece of a message."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A message of a chat."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None

    @model_validator(mode="before")
    @classmethod
    def drop_what_is_empty(cls, given: Any) -> Any:
        """Take out what clients say empty of when they send back what they were answered."""
        if not isinstance(given, dict):
            return given
        return {key: value for key, value in given.items() if value or key in cls.model_fields}

    @property
    def text(self) -> str:
        """Its content as one text."""
        parts = self.content or ""
        return parts if isinstance(parts, str) else "".join(part.text for part in parts)

    def for_template(self) -> dict[str, Any]:
        """The message as chat templates know it."""
        given = {"name": self.name, "tool_calls": self.tool_calls, "id": self.tool_call_id}
        others = {key: value for key, value in given.items() if value is not None}
        if "id" in others:
            others["tool_call_id"] = others.pop("id")
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": self.text, **others}


class ChatBody(Generation):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=TOP)] | None = None
    tools: list[dict[str, Any]] | None = None

    @model_validator(mode="after")
    def check_logprobs(self) -> "ChatBody":
        """Raise ValueError for a count of what is not asked for."""
        if self.top_logprobs and not self.logprobs:
            raise ValueError("'top_logprobs' needs 'logprobs': true")
        return self

    @property
    def likeliest(self) -> int | None:
        """How many likeliest tokens are wanted; None if no logprobs are."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionBody(Generation):
    """POST /v1/completions."""

    prompt: Text | Ids | list[Text] | list[Ids]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=TOP)] | None = None
    best_of: int | None = None

    @model_validator(mode="after")
    def check_best_of(self) -> "CompletionBody":
        """Raise ValueError for answers that would be thrown away."""
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("'best_of' is not supported beyond n")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """Every prompt, as text or ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [[one for one in self.prompt if isinstance(one, int)]]
        return [one for one in self.prompt if not isinstance(one, int)]


class EmbeddingBody(Body):
    """POST /v1/embeddings."""

    input: Text | Ids | Annotated[list[Text] | list[Ids], Field(max_length=2048)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None

    @property
    def inputs(self) -> list[str | list[int]]:
        """Every text, or its ids."""
        if isinstance(self.input, str):
            return [self.input]
        if self.input and isinstance(self.input[0], int):
            return [[one for one in self.input if isinstance(one, int)]]
        return [one for one in self.input if not isinstance(one, int)]
