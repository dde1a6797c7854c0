"""Measured decode speeds of GPUs, one user, against our model of what they achieve."""

from dataclasses import dataclass

from cluster.compare.devices import BY_NAME
from cluster.compare.roofline import decode_step
from cluster.model.known import known_model

TOLERANCE = 0.25
GPT_FAST = "gpt-fast, README (8 x A100 80 GB limited to 330 W, short prompts)"
SEMI = "SemiAnalysis, Groq Inference Tokenomics, 2024-02-21"


@dataclass(frozen=True)
class Measured:
    """A published speed, and ours for the same model, devices and weights."""

    model: str
    device: str
    count: int
    weight_bytes: int
    tokens_per_s: float
    source: str

    @property
    def ours(self) -> float:
        """Tokens per second by our model."""
        model, device = known_model(self.model), BY_NAME[self.device]
        step = decode_step(model, device, self.count, 1, 128, self.weight_bytes, achieved=True)
        assert step is not None
        return step.tokens_per_s_per_user

    @property
    def error(self) -> float:
        """Relative error of ours."""
        return self.ours / self.tokens_per_s - 1

    @property
    def ok(self) -> bool:
        """Whether ours is within the tolerance."""
        return abs(self.error) <= TOLERANCE


MEASURED = (
    Measured("mixtral-8x7b", "H100", 8, 2, 280, SEMI),
    Measured("mixtral-8x7b", "A100", 8, 2, 220, SEMI),
    *(
        Measured("llama-2-7b", "A100", count, 2, speed, GPT_FAST)
        for count, speed in ((1, 104.9), (2, 168.84), (4, 254.02), (8, 328.43))
    ),
    *(
        Measured("llama-2-70b", "A100", count, 2, speed, GPT_FAST)
        for count, speed in ((2, 21.32), (4, 38.01), (8, 62.50))
    ),
    Measured("llama-2-70b", "A100", 1, 1, 19.13, GPT_FAST),
    Measured("llama-2-70b", "A100", 8, 1, 80.44, GPT_FAST),
    *(
        Measured("mixtral-8x7b", "A100", count, 2, speed, f"{GPT_FAST}, mixtral-moe")
        for count, speed in ((2, 96.67), (4, 155.35), (8, 227.82))
    ),
    Measured("mixtral-8x7b", "A100", 8, 1, 279.35, f"{GPT_FAST}, mixtral-moe"),
)
