"""Weights of a Llama-like model from a GGUF file, dequantised to float32 layer by layer."""

from collections.abc import Iterator, Sequence
from functools import cached_property

from cluster.errors import ModelError
from cluster.model.gguf_file import GgufFile
from cluster.model.spec import F32, LayerWeights, ModelSpec

# Field of LayerWeights: tensor name in the file. The llama architecture of llama.cpp stores the
# rows of attn_q and attn_k with interleaved rotary pairs, which is our form too.
_LAYER_TENSORS = {
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
_EMBEDDING, _HEAD, _FINAL_NORM = "token_embd.weight", "output.weight", "output_norm.weight"


class GgufWeights:
    """The `Weights` of an open GGUF file.

    Raises ModelError at once for another architecture, an absent or misshapen tensor, and a tensor
    we would ignore (a bias, rotary factors): its model would compute something else.
    """

    def __init__(self, file: GgufFile, name: str = "") -> None:
        self._file = file
        self.spec = read_spec(file, name)
        expected = set()
        for name, shape in self._expected_shapes():  # lazily: a damaged layer count may be huge
            file.check_shape(name, shape)
            expected.add(name)
        unknown = sorted(file.tensor_names() - expected)
        if unknown:
            raise file.error(
                f"tensor {unknown[0]} is not part of a plain Llama model", "use another model"
            )

    def _expected_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        spec = self.spec
        yield _EMBEDDING, (spec.vocab, spec.hidden)
        yield _FINAL_NORM, (spec.hidden,)
        if not spec.tied_head:
            yield _HEAD, (spec.vocab, spec.hidden)
        shapes = spec.layer_shapes()
        for index in range(spec.layers):
            for field, tensor in _LAYER_TENSORS.items():
                yield f"blk.{index}.{tensor}.weight", shapes[field]

    @cached_property
    def final_norm(self) -> F32:
        """Return the last norm's weights [hidden]."""
        return self._file.rows(_FINAL_NORM)

    def layer(self, index: int) -> LayerWeights:
        """Return layer `index`, about 14 MB for SmolLM2-135M. Raises ModelError on bad values."""
        if not 0 <= index < self.spec.layers:
            raise ModelError(self.spec.name, f"has no layer {index}, only {self.spec.layers}")
        return LayerWeights(
            **{
                field: self._file.rows(f"blk.{index}.{tensor}.weight")
                for field, tensor in _LAYER_TENSORS.items()
            }
        ).check(self.spec)

    def embedding_rows(self, ids: Sequence[int]) -> F32:
        """Return the embeddings [len(ids), hidden]. Raises ModelError on an id out of range."""
        check_ids(self.spec, ids)
        return self._file.rows(_EMBEDDING, list(ids))

    def head_rows(self, low: int, high: int) -> F32:
        """Return rows low..high-1 of the output head [high - low, hidden]."""
        return self._file.rows(_EMBEDDING if self.spec.tied_head else _HEAD, slice(low, high))


def check_ids(spec: ModelSpec, ids: Sequence[int]) -> None:
    """Raise ModelError unless all token ids are inside the vocabulary."""
    for token in ids:
        if not 0 <= token < spec.vocab:
            raise ModelError(
                spec.name, f"token {token} is not in the vocabulary of {spec.vocab} tokens"
            )


def read_spec(file: GgufFile, name: str = "") -> ModelSpec:
    """Return the shape in the metadata, under `name` if given.

    Raises ModelError on what we cannot run.
    """
    architecture = file.value("general.architecture", str)
    if architecture != "llama":
        raise file.error(f"is of architecture '{architecture}'", "only 'llama' is supported")
    _refuse_variants(file)
    heads = file.value("llama.attention.head_count", int)
    hidden = file.value("llama.embedding_length", int)
    if heads < 1:
        raise file.error(f"says it has {heads} attention heads")
    head_dim = file.value("llama.attention.key_length", int, hidden // heads)
    if file.value("llama.rope.dimension_count", int, head_dim) != head_dim:
        raise file.error(f"rotates only part of its {head_dim}-wide heads", "use another model")
    return ModelSpec(
        name=name or file.value("general.name", str, file.path.stem),
        layers=file.value("llama.block_count", int),
        hidden=hidden,
        heads=heads,
        kv_heads=file.value("llama.attention.head_count_kv", int, heads),
        head_dim=head_dim,
        ffn=file.value("llama.feed_forward_length", int),
        vocab=len(file.value("tokenizer.ggml.tokens", list)),
        rms_eps=file.value("llama.attention.layer_norm_rms_epsilon", float),
        rope_theta=file.value("llama.rope.freq_base", float, 10000.0),
        tied_head=_HEAD not in file.tensor_names(),
        context_max=file.value("llama.context_length", int),
    ).check()


def _refuse_variants(file: GgufFile) -> None:
    if file.value("llama.expert_count", int, 0):
        raise file.error("is a mixture of experts", "only dense models are supported")
    scaling = file.value("llama.rope.scaling.type", str, "none")
    if scaling != "none":
        raise file.error(f"uses rotary scaling '{scaling}'", "only unscaled models are supported")
