"""Shapes of well-known models by name, for planning.

Source of every number: the `config.json` that the makers publish with the weights.
"""

from cluster.errors import UnknownName
from cluster.model.rope import RopeScaling, yarn_magnitude
from cluster.model.spec import Experts, Latent, ModelSpec


def _yarn(factor: float, low: float, high: float) -> RopeScaling:
    return RopeScaling("yarn", factor, 4096, low, high, yarn_magnitude(factor))


_ENCODER = ("the layers of an encoder (LayerNorm, learned positions, an FFN without gate)",)
_GPT_OSS = ("attention sinks", "sliding windows", "biases of experts and output projection")
# In these two YaRN scales the softmax instead of cosine and sine: mscale equals mscale_all_dim.
_DEEPSEEK = RopeScaling("yarn", 40.0, 4096, 1.0, 32.0)
_KIMI = RopeScaling("yarn", 32.0, 4096, 1.0, 1.0)

# name, layers, hidden, heads, KV heads, head_dim, ffn, vocab, eps, rope_theta, tied, context
_SPECS = (
    ModelSpec("smollm2-135m", 30, 576, 9, 3, 64, 1536, 49152, 1e-5, 100e3, True, 8192),
    ModelSpec("llama-2-7b", 32, 4096, 32, 32, 128, 11008, 32000, 1e-5, 10e3, False, 4096),
    ModelSpec("llama-2-13b", 40, 5120, 40, 40, 128, 13824, 32000, 1e-5, 10e3, False, 4096),
    ModelSpec("llama-2-70b", 80, 8192, 64, 8, 128, 28672, 32000, 1e-5, 10e3, False, 4096),
    ModelSpec("llama-3-8b", 32, 4096, 32, 8, 128, 14336, 128256, 1e-5, 500e3, False, 8192),
    ModelSpec("llama-3-70b", 80, 8192, 64, 8, 128, 28672, 128256, 1e-5, 500e3, False, 8192),
    # Llama 3.1, whose factor 8 stretches 8,192 tokens to 131,072
    ModelSpec(
        "llama-3-405b", 126, 16384, 128, 8, 128, 53248, 128256, 1e-5, 500e3, False, 131072,
        rope_scaling=RopeScaling("llama3", 8.0, 8192, 1.0, 4.0),
    ),
    ModelSpec(
        "mixtral-8x7b", 32, 4096, 32, 8, 128, 14336, 32000, 1e-5, 1e6, False, 32768,
        experts=Experts(8, 2, 14336),
    ),
    ModelSpec(
        "qwen3-235b", 94, 4096, 64, 4, 128, 12288, 151936, 1e-6, 1e6, False, 40960,
        qk_norm=True, experts=Experts(128, 8, 1536),
    ),
    ModelSpec(
        "gpt-oss-120b", 36, 2880, 64, 8, 64, 2880, 201088, 1e-5, 150e3, False, 131072,
        qkv_bias=True, rope_scaling=_yarn(32.0, 1.0, 32.0),
        experts=Experts(128, 4, 2880), unsupported=_GPT_OSS,
    ),
    ModelSpec(
        "deepseek-v3", 61, 7168, 128, 128, 192, 18432, 129280, 1e-6, 10e3, False, 163840,
        rope_scaling=_DEEPSEEK, experts=Experts(256, 8, 2048, 2048, 3),
        latent=Latent(1536, 512, 64, 128),
    ),
    ModelSpec(
        "kimi-k2", 61, 7168, 64, 64, 192, 18432, 163840, 1e-6, 50e3, False, 131072,
        rope_scaling=_KIMI, experts=Experts(384, 8, 2048, 2048, 1),
        latent=Latent(1536, 512, 64, 128),
    ),
    ModelSpec(
        "bert-base", 12, 768, 12, 12, 64, 3072, 30522, 1e-12, 10e3, True, 512,
        activation="gelu", unsupported=_ENCODER,
    ),
    ModelSpec(
        "bert-large", 24, 1024, 16, 16, 64, 4096, 30522, 1e-12, 10e3, True, 512,
        activation="gelu", unsupported=_ENCODER,
    ),
)  # fmt: skip
_BY_NAME = {spec.name: spec for spec in _SPECS}
_ALIASES = {"smollm2": "smollm2-135m"}

NAMES = (*_ALIASES, *_BY_NAME)


def named_spec(name: str) -> ModelSpec:
    """Return the shape of a model by name (case does not matter). Raises UnknownName.

    >>> named_spec("smollm2").parameters()
    134515008
    """
    full = _ALIASES.get(name.lower(), name.lower())
    if full not in _BY_NAME:
        raise UnknownName("model", name, NAMES)
    return _BY_NAME[full].check()
