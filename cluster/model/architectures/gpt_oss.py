"""gpt-oss (OpenAI 2025), until ops exist as a dense model of all its experts."""

from cluster.model.architecture import Architecture
from cluster.model.architectures.llama import layer
from cluster.model.decoder import activation, read_decoder, safetensors_names
from cluster.model.graph.graph import Model
from cluster.model.graph.stand_in import Experts
from cluster.model.mixture import all_experts, without
from cluster.model.settings import Settings

_MISSING = ("attention sinks", "the clamped gate and the biases of experts")


def write(settings: Settings, name: str) -> Model:
    """The model of some settings."""
    if not settings.has("rope_scaling") and not settings.has("rope_parameters"):
        raise settings.error("has no 'rope_scaling'", "its class means YaRN by that")
    d = read_decoder(settings, theta=150000.0, head_dim=64, slides=True, full_every=2)
    for key, usual in (("swiglu_limit", 7.0), ("swiglu_alpha", 1.702)):
        settings.number(key, usual)
    count = settings.whole("num_local_experts")
    experts = Experts(count, settings.whole("num_experts_per_tok"), d.ffn.size)
    wide = all_experts(d, experts)
    bias = settings.flag("attention_bias", True)
    function = activation(settings)
    layers = d.of_windows(lambda window: layer(wide, function, bias, window=window))
    router = (d.hidden.size + 1) * count
    biases = count * (2 * d.ffn.size + d.hidden.size)
    more = d.layers * (router + biases + d.heads.size)
    return without(d.model(name, "gpt_oss", layers), _MISSING, None, more, experts)


ARCHITECTURE = Architecture(
    name="gpt_oss",
    write=write,
    model_types=("gpt_oss",),
    safetensors=safetensors_names(),
    gguf={},
    harmless=frozenset(("initial_context_length", "experts_per_token")),
)
