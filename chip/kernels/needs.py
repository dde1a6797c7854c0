"""What the decoder kernels ask of a chip; a chip without it is refused before any work."""

from chip.errors import SpecError
from chip.kernels.lanes import LANES
from chip.kernels.memory import INNER_SLICES
from chip.program import WEIGHT_SLICES
from chip.spec import ChipSpec


def check_served(spec: ChipSpec, chunk: int) -> None:
    """Raise SpecError with the first thing that kernels for `chunk` tokens at a time lack."""
    least = {
        "hemisphere_slices": INNER_SLICES + 2 * WEIGHT_SLICES,
        "streams": 32,
        "vxm_alus": 16,
        "sxm_queues": 4,
        "accumulator_depth": chunk,
        "slice_words": 512,
    }
    if (spec.lanes, spec.superlane_lanes) != (LANES, 16):
        rule = f"cannot run a model: the decoder kernels are written for {LANES} lanes, 20 x 16"
        raise SpecError(spec.name, "lanes", spec.lanes, rule)
    for field, count in least.items():
        value = getattr(spec, field)
        if value < count:
            rule = f"is too small to run a model: the decoder kernels need {count}"
            raise SpecError(spec.name, field, value, rule)
    if spec.slice_banks != 2:
        rule = "cannot run a model: the decoder kernels place data in 2 banks"
        raise SpecError(spec.name, "slice_banks", spec.slice_banks, rule)
