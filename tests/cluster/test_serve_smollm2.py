"""SmolLM2 as it is served: its tokenizer for clients, and its answers where caches are short."""

import json

import httpx
import pytest
from transformers import AutoTokenizer

from cluster.cli import main
from tests.cluster.serving import serving


def test_the_tokenizer_of_smollm2_is_written_for_clients_without_a_hub(
    tmp_path, capsys, smollm2_tokenizer, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(["fetch", "smollm2", "--tokenizer", str(tmp_path / "t"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokenizer"] == str(tmp_path / "t")
    theirs = AutoTokenizer.from_pretrained(str(tmp_path / "t"))
    for text in ("Hello 123 world\n\n  caf\u00e9", "<|im_start|>user\nx<|im_end|>", "\u2603 12345"):
        assert theirs(text, add_special_tokens=False).input_ids == smollm2_tokenizer.encode(text)
    text = "a \u2603\U0001f600\n\xa0"  # some of its characters are several tokens
    spelled = map(smollm2_tokenizer.token_bytes, smollm2_tokenizer.encode(text))
    assert b"".join(spelled).decode() == text
    chat = [{"role": "user", "content": "What is 2+2?"}]
    ids = theirs.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert ids == smollm2_tokenizer.encode_chat(chat)


@pytest.mark.soak
def test_few_pages_change_no_answer_of_smollm2():
    """Executed: three requests of two pages share three of them, and give way."""
    prompts = [f"{start}: " + "tea and milk, " * 72 for start in ("one", "two", "six")]
    body = {"model": "smollm2", "prompt": prompts, "max_tokens": 60, "temperature": 0}
    common = {"model": "smollm2", "concurrency": 3, "context": 640, "embeddings": "none"}
    found = []
    for more in ({}, {"prefix_cache": True, "kv_pages": 3}):
        with serving(**common, **more) as (url, service):
            asked = body | {"ignore_eos": True}
            found.append(httpx.post(f"{url}/v1/completions", json=asked, timeout=1500).json())
            gave_way = service.engine._runner.scheduler.preempted
    said = [[choice["text"] for choice in one["choices"]] for one in found]
    assert said[0] == said[1] and gave_way > 0
    assert found[0]["usage"]["total_time"] < found[1]["usage"]["total_time"]
