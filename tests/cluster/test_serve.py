"""`lpu serve`: what clients of OpenAI and Groq are told is what `lpu run` says, in its times."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import groq
import httpx
import numpy as np
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cluster
from cluster.cli import main
from cluster.encoders.embedding import Options as EmbedOptions
from cluster.encoders.embedding import embed_sentences
from cluster.generation.sampling import Sampling, exp_nonpositive
from cluster.model.reference import Reference
from cluster.model.toy import ToyTokenizer
from cluster.runs.display import Bars
from cluster.serving.engine import PipelineRunner
from cluster.serving.openai.text import StopText
from cluster.serving.requests import Request
from tests.cluster.serving import serving
from tests.cluster.tiny import tiny_weights

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ("hello", "a", "What is it?", "0123456789" * 5, "xyz", "hello", "tea", "no")
SLOW = {"speed": 2e-4, "concurrency": 1}  # a token of 25 us takes 125 ms
ALL = {"extra_body": {"ignore_eos": True}}  # so many tokens, whatever the seed
LONG = {"max_tokens": 300, **ALL}


@pytest.fixture(scope="module")
def served():
    with serving(queue=64) as found:
        yield found


@pytest.fixture(scope="module")
def locked():
    """A server with a key, which takes up caches of prompts that begin alike."""
    with serving(api_key="secret", prefix_cache=True, concurrency=2, embeddings="none") as (url, _):
        yield url


@pytest.fixture(scope="module")
def client(served):
    return openai.OpenAI(base_url=f"{served[0]}/v1", api_key="any", max_retries=0)


@pytest.fixture(scope="module")
def alone(served):
    """What a prompt alone is answered on the same chips, while the server has nothing to do."""

    def answer(prompt: str, count: int, sampling: Sampling) -> Request:
        runner, request = served[1].engine._runner, Request(tuple(prompt.encode()), count)
        again = PipelineRunner(runner.lowered, runner.machine)
        assert list(again.answer([request], sampling.pick, frozenset({0})))
        return request

    return answer


@pytest.fixture(scope="module")
def said(alone):
    """What `lpu run tiny` says to each prompt."""
    answers = {text: alone(text, 12, Sampling()).tokens for text in set(PROMPTS)}
    return {text: ToyTokenizer().decode(tokens) for text, tokens in answers.items()}


def chat(client, text="hello", **more):
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.create(model="tiny", messages=messages, **more)


def posted(url: str, path: str, body: dict) -> socket.socket:
    """A connection on which a request has been sent, and nothing is read."""
    data = json.dumps(body).encode()
    head = f"POST /v1/{path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n"
    found = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
    found.sendall(head.encode() + data)
    return found


def metrics(url: str) -> dict[str, float]:
    lines = httpx.get(f"{url}/metrics", timeout=60).text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def eventually(holds, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.01)


@pytest.mark.parametrize("users", [1, 2, 8])
def test_greedy_answers_are_those_of_a_run_however_many_ask_at_a_time(users, served, said):
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{served[0]}/v1", api_key="any") as client:
            asked = (
                client.completions.create(model="tiny", prompt=text, max_tokens=12, temperature=0)
                for text in PROMPTS[:users]
            )
            return [one.choices[0].text for one in await asyncio.gather(*asked)]

    assert asyncio.run(ask()) == [said[text] for text in PROMPTS[:users]]


def test_a_stream_says_the_same_piece_by_piece_and_ends_in_its_usage(client):
    whole = chat(client, max_tokens=9, temperature=0)
    *chunks, last = chat(
        client, max_tokens=9, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    assert last.choices == [] and all(chunk.usage is None for chunk in chunks)
    used, before = last.usage.model_dump(), whole.usage.model_dump()
    assert used["completion_tokens"] == 9 and used["prompt_tokens"] == 5 and used["emulated"]
    assert used["completion_time"] == pytest.approx(before["completion_time"], rel=0.05)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["length"]
    first, end = chunks[0].model_extra["x_groq"], chunks[-1].model_extra["x_groq"]
    assert first["id"] == end["id"] and end["usage"]["completion_time"] == used["completion_time"]


def test_times_are_those_of_a_run_on_the_same_plan(client, alone):
    mine = alone("hello", 9, Sampling())
    used = chat(client, max_tokens=9, temperature=0).usage.model_dump()
    assert used["prompt_time"] == pytest.approx(mine.first_token_s)
    assert used["completion_time"] == pytest.approx(8 / mine.tokens_per_s)
    assert used["total_time"] == pytest.approx(used["prompt_time"] + used["completion_time"])
    assert 0 <= used["queue_time"] < used["prompt_time"]


def test_groq_finds_its_fields(served):
    client = groq.Groq(base_url=served[0], api_key="any", max_retries=0)
    found = chat(client, max_completion_tokens=4, temperature=0)
    assert found.usage.total_time == found.usage.prompt_time + found.usage.completion_time
    assert found.x_groq.id.startswith("req_")
    *_, last = chat(client, max_completion_tokens=4, temperature=0, stream=True)
    assert last.x_groq.usage.completion_tokens == 4


def test_seeds_reproduce_and_the_first_choice_is_that_of_a_run(client, alone):
    def ask(**more):
        settings = {"max_tokens": 12, "temperature": 1.5, "top_p": 0.9, "seed": 7} | more
        answers = client.completions.create(model="tiny", prompt="hello", **settings).choices
        assert [one.index for one in answers] == list(range(len(answers)))
        return [one.text for one in answers]

    three = ask(n=3)
    assert len(set(three)) == 3 and ask() == three[:1] and ask(seed=8) == three[1:2]
    run = alone("hello", 12, Sampling(1.5, 0.9, 7))
    assert ToyTokenizer().decode(run.tokens) == three[0]
    assert len({ask(seed=None, **ALL)[0] for _ in range(3)}) > 1


def test_an_echo_says_how_likely_each_token_of_the_prompt_was(client):
    prompt = "hello you"
    found = client.completions.create(
        model="tiny", prompt=[list(prompt.encode()), list(b"tea")], max_tokens=0, echo=True,
        logprobs=3,
    )  # fmt: skip
    first, second = found.choices
    assert (first.text, second.text) == (prompt, "tea") and found.usage.completion_tokens == 0
    likely = first.logprobs
    assert likely.tokens == list(prompt) and likely.text_offset == list(range(len(prompt)))
    assert likely.token_logprobs[0] is None and likely.top_logprobs[0] is None
    rows = Reference(tiny_weights(), 320).rows(list(prompt.encode())).astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    rows -= np.log(exp_nonpositive(rows).sum(axis=1, keepdims=True))
    for row, token, mine, top in zip(
        rows, prompt[1:], likely.token_logprobs[1:], likely.top_logprobs[1:], strict=False
    ):
        assert mine == pytest.approx(row[ord(token)], abs=0.05)
        assert max(top.values()) == pytest.approx(row.max(), abs=0.05) and top[token] == mine


def test_logprobs_of_an_answer_are_those_of_each_token(client):
    found = chat(client, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3).choices[0]
    content = found.logprobs.content
    assert len(content) == 5 and "".join(one.token for one in content) == found.message.content
    for one in content:
        assert [one.token, one.logprob] == [one.top_logprobs[0].token, one.top_logprobs[0].logprob]
        assert len(one.top_logprobs) == 3 and bytes(one.bytes).decode() == one.token


def test_a_stop_text_ends_an_answer_before_it_and_frees_its_slot(client, served, said):
    whole = said["hello"]
    stop = whole[4:7]
    found = client.completions.create(
        model="tiny", prompt="hello", max_tokens=300, temperature=0, stop=[stop, "\u2603"]
    )
    assert found.choices[0].text == whole[: whole.index(stop)]
    assert found.choices[0].finish_reason == "stop" and found.usage.completion_tokens < 10
    eventually(lambda: not served[1].engine.active)


@given(st.lists(st.text("abc", max_size=4), max_size=12), st.lists(st.text("abc", min_size=1)))
def test_stop_texts_are_found_across_pieces_and_nothing_else_is_lost(pieces, stops):
    stop, shown, whole = StopText(stops), "", "".join(pieces)
    for piece in pieces:
        shown += stop.push(piece)
        if stop.stopped:
            break
    else:
        shown += stop.finish()
    ends = [at for one in stops if (at := whole.find(one)) >= 0]
    assert stop.stopped == bool(ends)
    # of two that overlap, the one that is whole first has ended the text
    assert whole.startswith(shown) and (shown == whole if not ends else len(shown) >= min(ends))
    assert not any(one in shown for one in stops)


def test_a_prompt_that_comes_again_starts_behind_what_is_in_the_caches(locked):
    client = openai.OpenAI(base_url=f"{locked}/v1", api_key="secret", max_retries=0)
    asked = {"model": "tiny", "prompt": "0123456789 " * 4, "max_tokens": 4, "temperature": 0}
    first, again = (client.completions.create(**asked) for _ in range(2))
    assert first.choices[0].text == again.choices[0].text
    cached = [one.usage.prompt_tokens_details.cached_tokens for one in (first, again)]
    assert cached == [0, 32] and again.usage.prompt_time < first.usage.prompt_time


def test_embeddings_are_those_of_lpu_embed(client):
    texts = ["a stone", "tea"]
    run = embed_sentences(EmbedOptions("tiny-encoder", texts), Bars())
    for form in ({}, {"encoding_format": "float"}):
        found = client.embeddings.create(model="tiny-encoder", input=texts, **form)
        for mine, its in zip(found.data, run["embeddings"], strict=True):
            assert np.allclose(mine.embedding, its, atol=1e-3)
    assert found.usage.total_tokens == 10 and found.usage.model_extra["emulated"]


HELLO = [{"role": "user", "content": "a"}]
CHATS = [
    ({"model": "gpt-4"}, 404, "model"),
    ({"model": None}, 422, "model"),
    ({"messages": []}, 422, "messages"),
    ({"messages": "hello"}, 422, "messages"),
    ({"messages": [{"role": "x", "content": "a"}]}, 422, "role"),
    ({"messages": [{"role": "user", "content": 1}]}, 422, "content"),
    ({"messages": [{"role": "user", "content": "\ud800"}]}, 400, "Unicode"),
    ({"max_tokens": "5"}, 422, "max_tokens"),
    ({"temperature": -1}, 422, "temperature"),
    ({"n": 0}, 422, "n"),
    ({"n": 100}, 400, "the slots and the queue hold 68"),
    ({"top_logprobs": 2}, 422, "logprobs"),
    ({"max_tokens": 999}, 400, "context"),
    ({"logit_bias": {"1": 1}}, 400, "logit_bias"),
    ({"colour": "red"}, 400, "colour"),
]
CHAT = {"model": "tiny", "messages": HELLO}
WRONG = [
    *(("chat/completions", CHAT | change, *rest) for change, *rest in CHATS),
    ("completions", {"model": "tiny", "prompt": "a" * 999}, 400, "context"),
    ("completions", {"model": "tiny", "prompt": [999]}, 400, "999"),
    ("completions", {"model": "tiny", "prompt": []}, 422, "empty"),
    ("completions", {"model": "tiny", "prompt": [[]]}, 400, "empty"),
    ("completions", {"model": "tiny", "prompt": ""}, 422, "prompt"),
    ("embeddings", {"model": "tiny", "input": "a"}, 404, "tiny"),
    ("embeddings", {"model": "tiny-encoder", "input": "a" * 999}, 400, "999"),
    ("nothing", {}, 404, "nothing"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status", "named"), WRONG)
def test_a_wrong_request_is_told_what_is_wrong_in_the_form_of_openai(
    path, body, status, named, served
):
    found = httpx.post(f"{served[0]}/v1/{path}", content=json.dumps(body), timeout=60)
    assert found.status_code == status, found.text
    error = found.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and "\n" not in error["message"]
    assert named in json.dumps(error)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"model": NaN'])
def test_what_is_no_json_is_400(body, served):
    found = httpx.post(f"{served[0]}/v1/chat/completions", content=body, timeout=60)
    assert (found.status_code, found.json()["error"]["code"]) == (400, "invalid_json")


def test_a_body_beyond_the_limit_is_413_also_without_a_length(served):
    url = f"{served[0]}/v1/chat/completions"
    assert httpx.post(url, content=b" " * (2 << 20), timeout=60).status_code == 413
    pieces = (b" " * 65536 for _ in range(32))
    assert httpx.post(url, content=pieces, timeout=60).status_code == 413


def test_models_health_and_the_key(locked):
    client = openai.OpenAI(base_url=f"{locked}/v1", api_key="secret", max_retries=0)
    (model,) = client.models.list()
    assert (model.id, model.model_extra["max_model_len"]) == ("tiny", 320)
    assert client.models.retrieve("tiny").id == "tiny"
    for key in ("wrong", "secret2"):
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key=key).models.list()
    assert httpx.get(f"{locked}/v1/models", timeout=60).status_code == 401
    assert httpx.get(f"{locked}/health", timeout=60).json() == {"status": "ok"}
    assert httpx.get(f"{locked}/v1/chat/completions", timeout=60).status_code == 401


def test_a_full_queue_says_when_to_come_back_and_a_hang_up_frees_the_slot():
    with serving(queue=0, **SLOW) as (url, service):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
        with chat(client, **LONG, stream=True) as stream:
            next(iter(stream))
            with pytest.raises(openai.RateLimitError) as caught:
                chat(client, max_tokens=1)
            assert int(caught.value.response.headers["retry-after"]) >= 1
            assert metrics(url)['vllm:num_requests_running{model_name="tiny"}'] == 1
        eventually(lambda: not service.engine.active)  # the stream was closed long before its end
        body = {"model": "tiny", "messages": HELLO, "max_tokens": 300, "ignore_eos": True}
        with posted(url, "chat/completions", body):  # and so is an answer in one piece
            eventually(lambda: service.engine.running)
        eventually(lambda: not service.engine.active)
        assert chat(client, max_tokens=1).usage.completion_tokens == 1
        found = metrics(url)
        path = 'path="/v1/chat/completions",status='
        assert found[f'lpu:http_responses_total{{{path}"499"}}'] == 2
        assert found[f'lpu:http_responses_total{{{path}"429"}}'] == 1
        name = 'vllm:request_success_total{finished_reason="abort",model_name="tiny"}'
        assert found[name] == 2


def test_readers_that_do_not_read_and_many_open_streams_stop_nobody(served):
    url, service = served
    body = {"model": "tiny", "prompt": "a", "max_tokens": 20, "stream": True}
    idle = [posted(url, "completions", body) for _ in range(40)]
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
    assert chat(client, max_tokens=2, temperature=0).usage.completion_tokens == 2
    for one in idle:
        one.close()
    eventually(lambda: not service.engine.active)


def test_words_may_come_from_elsewhere_in_the_times_of_a_model_that_is_only_planned():
    timing = {"timing_of": "smollm2", "chips": 6, "speed": 1e3, "concurrency": 2}
    with serving(text="echo", **timing) as (url, _):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
        messages = [{"role": "user", "content": "say this"}]
        found = client.chat.completions.create(model="smollm2", messages=messages, temperature=0)
        assert found.choices[0].message.content == "say this"
        assert found.choices[0].finish_reason == "stop"
        used = found.usage.model_dump()
        plan = cluster.plan("smollm2", chips=6, context=640)  # one user at a time
        token_s = used["completion_time"] / (used["completion_tokens"] - 1)
        assert token_s == pytest.approx(1 / plan["tokens_per_s_per_user"], rel=0.1)


@pytest.mark.parametrize("words", ["random", "tiny"])
def test_other_words_go_by_the_seed_or_are_a_models(words, said):
    with serving(timing_of="tiny", text=words, speed=1e6) as (url, _):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)
        settings = {"model": "tiny", "max_tokens": 12, "temperature": 0}
        first, second, third = (
            client.completions.create(prompt="hello", seed=seed, **settings).choices[0].text
            for seed in (1, 1, 2)
        )
        assert first == second and len(first) == 12
        assert (first == third == said["hello"]) if words == "tiny" else first != third


def test_sigterm_lets_answers_end():
    command = [sys.executable, "-m", "cluster", "serve", "tiny", "--port", "0", "--speed", "0.001"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        url = re.search(r"http://\S+", process.stdout.readline())[0]
        client = openai.OpenAI(base_url=url, api_key="any", max_retries=0)
        stream = iter(chat(client, max_tokens=30, stream=True, **ALL))
        next(stream)
        process.send_signal(signal.SIGTERM)
        *_, last = stream
        assert last.choices[0].finish_reason == "length"
        assert process.wait(300) == 0


def test_a_port_in_use_is_one_line(served, capsys):
    port = served[0].rpartition(":")[2]
    assert main(["serve", "tiny", "--port", port]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"--port {port}" in said and "in use" in said
