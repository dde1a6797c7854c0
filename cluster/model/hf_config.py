"""The shape of a model from a Hugging Face `config.json`.

What a config says and we do not know how to compute is an error or, where a plan is still
meaningful, a line of `ModelSpec.unsupported`; nothing is ignored in silence.
"""

import json
from pathlib import Path
from typing import Any

from cluster.errors import ModelError
from cluster.model.rope import KINDS, RopeScaling, yarn_magnitude
from cluster.model.spec import Experts, Latent, ModelSpec

DENSE = ("llama", "mistral", "qwen2", "qwen3", "gemma")
MIXTURES = ("mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3", "kimi_k2")
ENCODERS = ("bert",)
ENCODER_PARTS = ("the layers of an encoder (LayerNorm, learned positions, an FFN without gate)",)
_ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu"}


class Config:
    """The JSON object of a config file; every access is checked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise self.error("does not exist", "give a folder with a config.json") from None
        except (OSError, ValueError) as error:
            raise self.error(f"cannot be read: {error}", "it must be a JSON object") from error
        if not isinstance(found, dict):
            raise self.error("is no JSON object")
        self.values: dict[str, Any] = found

    def error(self, problem: str, advice: str = "") -> ModelError:
        """Return the error to raise about this file."""
        return ModelError(str(self.path), problem, advice)

    def number(self, *keys: str, default: float | None = None) -> Any:
        """The first of `keys` that is there and not null; raises ModelError unless a number."""
        for key in keys:
            value = self.values.get(key)
            if value is not None:
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise self.error(f"'{key}' is {value!r}, expected a number")
                return value
        if default is None:
            raise self.error(f"has no '{keys[0]}'")
        return default

    def whole(self, *keys: str, default: int | None = None) -> int:
        """As `number`, an integer."""
        value = self.number(*keys, default=default)
        if not isinstance(value, int):
            raise self.error(f"'{keys[0]}' is {value!r}, expected an integer")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """A boolean; raises ModelError otherwise."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.error(f"'{key}' is {value!r}, expected true or false")
        return value

    @property
    def kind(self) -> str:
        """Its model_type."""
        return str(self.values.get("model_type"))


def read_config(path: Path, name: str) -> ModelSpec:
    """Return the shape of the model `name`; raises ModelError for a kind that is not known."""
    config = Config(path)
    known = (*DENSE, *MIXTURES, *ENCODERS)
    if config.kind not in known:
        raise config.error(f"is of type '{config.kind}'", f"known are {', '.join(known)}")
    if config.kind in ENCODERS:
        return _encoder(config, name)
    heads = config.whole("num_attention_heads")
    latent = _latent(config) if config.kind in ("deepseek_v3", "kimi_k2") else None
    hidden = config.whole("hidden_size")
    head_dim = config.whole("head_dim", default=hidden // max(heads, 1))
    if latent:
        head_dim = config.whole("qk_nope_head_dim") + latent.rope_dim
    return ModelSpec(
        name=name,
        layers=config.whole("num_hidden_layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=heads if latent else config.whole("num_key_value_heads", default=heads),
        head_dim=head_dim,
        ffn=config.whole("intermediate_size"),
        vocab=config.whole("vocab_size"),
        rms_eps=float(config.number("rms_norm_eps")),
        rope_theta=float(_rope(config).get("rope_theta", 10000.0)),
        tied_head=config.flag("tie_word_embeddings", config.kind == "gemma"),
        context_max=_context(config),
        qkv_bias=config.kind == "qwen2" or (config.flag("attention_bias") and _only_qkv(config)),
        qk_norm=config.kind in ("qwen3", "qwen3_moe"),
        activation=_activation(config),
        rope_scaling=_scaling(config),
        experts=_experts(config),
        latent=latent,
        unsupported=_unsupported(config),
    ).check()


def _only_qkv(config: Config) -> bool:
    """True for models whose attention_bias leaves the output projection without one."""
    return config.kind == "gpt_oss"


def _encoder(config: Config, name: str) -> ModelSpec:
    heads, hidden = config.whole("num_attention_heads"), config.whole("hidden_size")
    return ModelSpec(
        name, config.whole("num_hidden_layers"), hidden, heads, heads, hidden // max(heads, 1),
        config.whole("intermediate_size"), config.whole("vocab_size"),
        float(config.number("layer_norm_eps", default=1e-12)), 10000.0, True,
        config.whole("max_position_embeddings"), activation="gelu",
        unsupported=ENCODER_PARTS,
    ).check()  # fmt: skip


def _rope(config: Config) -> dict[str, Any]:
    """Rotary parameters of both generations of the format, in one table."""
    table = {"rope_theta": config.number("rope_theta", default=10000.0)}
    for key in ("rope_scaling", "rope_parameters"):
        value = config.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise config.error(f"'{key}' is {value!r}, expected an object")
        table |= value or {}
    return table


def _scaling(config: Config) -> RopeScaling | None:
    table = _rope(config)
    kind = table.get("rope_type", table.get("type", "default"))
    if kind == "default":
        return None
    if kind not in KINDS:
        raise config.error(f"scales its rotary embedding by '{kind}'", f"known: {', '.join(KINDS)}")
    try:
        factor = float(table["factor"])
        original = int(table.get("original_max_position_embeddings", _context(config)))
        if kind == "llama3":
            low, high = float(table["low_freq_factor"]), float(table["high_freq_factor"])
            return RopeScaling(kind, factor, original, low, high)
        if kind == "yarn":
            low, high = float(table.get("beta_slow", 1)), float(table.get("beta_fast", 32))
            magnitude = table.get("attention_factor") or yarn_magnitude(factor)
            return RopeScaling(kind, factor, original, low, high, float(magnitude))
    except (KeyError, TypeError, ValueError) as error:
        raise config.error(f"has a '{kind}' rope_scaling without a usable {error}") from error
    return RopeScaling(kind, factor, original)


def _context(config: Config) -> int:
    """Tokens the model was trained for; no more than its sliding window, as caches do not slide."""
    context = config.whole("max_position_embeddings")
    window = config.values.get("sliding_window")
    slides = config.flag("use_sliding_window", config.kind in ("mistral", "mixtral"))
    if slides and isinstance(window, int):
        return min(context, window)
    return context


def _activation(config: Config) -> str:
    name = config.values.get("hidden_activation") or config.values.get("hidden_act", "silu")
    if config.kind == "gemma":  # its first config files say gelu and mean the tanh form
        name = "gelu_pytorch_tanh"
    if name not in _ACTIVATIONS:
        raise config.error(f"has the activation '{name}'", f"known: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _experts(config: Config) -> Experts | None:
    if config.kind not in MIXTURES:
        return None
    chosen = config.whole("num_experts_per_tok")
    if config.kind in ("mixtral", "gpt_oss"):
        return Experts(config.whole("num_local_experts"), chosen, config.whole("intermediate_size"))
    ffn = config.whole("moe_intermediate_size")
    if config.kind == "qwen3_moe":
        return Experts(config.whole("num_experts"), chosen, ffn)
    shared = config.whole("n_shared_experts", default=0) * ffn
    dense = config.whole("first_k_dense_replace", default=0)
    return Experts(config.whole("n_routed_experts"), chosen, ffn, shared, dense)


def _latent(config: Config) -> Latent:
    return Latent(
        config.whole("q_lora_rank", default=0),
        config.whole("kv_lora_rank"),
        config.whole("qk_rope_head_dim"),
        config.whole("v_head_dim"),
    )


def _unsupported(config: Config) -> tuple[str, ...]:
    found = []
    if config.kind == "gpt_oss":
        found = ["attention sinks", "sliding windows", "biases of experts and output projection"]
    elif config.flag("attention_bias") and config.kind != "qwen2":
        found.append("biases of the output projection")
    if config.flag("mlp_bias"):
        found.append("biases of the FFN")
    if config.number("partial_rotary_factor", default=1.0) != 1.0:
        found.append("heads that rotate in part")
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if config.values.get(key) is not None:
            found.append(f"a cap on logits ({key})")
    return tuple(found)
