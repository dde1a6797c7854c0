"""A small GGUF file, written from random weights, for tests of everything that reads one."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from cluster.model.gguf_file import GgufFile
from cluster.model.gguf_tokenizer import read_gguf_tokenizer
from cluster.model.reference import Reference
from cluster.model.synthetic import TINY, tiny_weights
from cluster.model.tokenizer import TextTokenizer
from cluster.model.weights.files import FileWeights
from cluster.model.weights.gguf import open_gguf

TENSORS = {
    "attn_norm": "attn_norm",
    "wq": "attn_q",
    "wk": "attn_k",
    "wv": "attn_v",
    "wo": "attn_output",
    "ffn_norm": "ffn_norm",
    "w_gate": "ffn_gate",
    "w_up": "ffn_up",
    "w_down": "ffn_down",
}
TEMPLATE = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}[assistant]"


def write_tiny_gguf(path: Path, drop: tuple[str, ...] = (), **metadata: object) -> Path:
    """Write TINY with random weights; `metadata` overrides, None for no such key.

    `drop` leaves tensors out.
    """
    writer = gguf.GGUFWriter(path, str(metadata.pop("architecture", "llama")))
    fields = {
        "llama.block_count": TINY.layers,
        "llama.context_length": TINY.context_max,
        "llama.embedding_length": TINY.hidden,
        "llama.feed_forward_length": TINY.ffn,
        "llama.attention.head_count": TINY.heads,
        "llama.attention.head_count_kv": TINY.kv_heads,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
    }
    add = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32}
    for key, value in ({"tokenizer.chat_template": TEMPLATE} | fields | metadata).items():
        if value is not None:
            add[type(value)](key, value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", TINY.rms_eps)
    writer.add_float32("llama.rope.freq_base", TINY.rope_theta)
    _write_tokenizer(writer)
    weights = tiny_weights()
    tensors = {"token_embd": weights.head_rows(0, TINY.vocab), "output_norm": weights.final_norm}
    for index in range(TINY.layers):
        layer = weights.layer(index)
        tensors |= {f"blk.{index}.{name}": getattr(layer, key) for key, name in TENSORS.items()}
    for name, array in tensors.items():
        if name not in drop:
            writer.add_tensor(f"{name}.weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_tokenizer(writer: gguf.GGUFWriter) -> None:
    letters = [chr(c) for c in range(0x21, 0x21 + 94)]
    merged = ["th", "the", "Ġthe"]
    tokens = ["<s>", "</s>", *letters, "Ġ", "Ċ", *merged]
    tokens += [f"<filler{n}>" for n in range(TINY.vocab - len(tokens))]
    control = gguf.TokenType.CONTROL
    types = [control if t.startswith("<") and len(t) > 1 else 1 for t in tokens]
    writer.add_string("tokenizer.ggml.model", "gpt2")
    writer.add_string("tokenizer.ggml.pre", "smollm")
    writer.add_array("tokenizer.ggml.tokens", tokens)
    writer.add_array("tokenizer.ggml.token_type", [int(t) for t in types])
    writer.add_array("tokenizer.ggml.merges", ["t h", "th e", "Ġ the"])


@pytest.fixture(scope="session")
def write_gguf():
    """The function that writes a tiny GGUF file."""
    return write_tiny_gguf


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="session")
def smollm2_file(smollm2_path) -> GgufFile:
    return GgufFile(smollm2_path)


@pytest.fixture(scope="session")
def smollm2_weights(smollm2_file) -> FileWeights:
    return open_gguf(smollm2_file, "smollm2-135m")


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2_file) -> TextTokenizer:
    return read_gguf_tokenizer(smollm2_file)


@pytest.fixture(scope="module")
def smollm2_reference(smollm2_file) -> Reference:
    return Reference(open_gguf(smollm2_file), context=320)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
