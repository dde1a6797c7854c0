"""Encoder kernels against NumPy, on random data, through wire format, linker and chip."""

import numpy as np
import pytest
from scipy.special import erf

from chip.kernels import layernorm
from chip.kernels.gelu import gelu
from chip.kernels.shape import blocks
from chip.schedule import Rows
from chip.spec import EAST, WEST
from tests.chip.kernel_rig import HALF_ULP, SIDES, KernelRig, by_block, from_blocks, normal


@pytest.mark.parametrize("tokens", [8, 96])
@pytest.mark.parametrize("total", [64, 768])
@pytest.mark.parametrize("added", [True, False])
def test_layer_norm_of_a_residual_sum(tokens, total, added):
    cut, rig = blocks(total), KernelRig()
    x, y = 3 * normal(tokens, total) + 1, normal(tokens, total, seed=1)
    weight, bias = normal(1, total, seed=2), normal(1, total, seed=3)
    place = {"x": (EAST, 0, 0), "z": (EAST, 0, 1), "y": (WEST, 1, 0)}
    source, other = (rig.rows(n, place[n], by_block(v, cut)) for n, v in (("x", x), ("y", y)))
    z, out = rig.room("z", place["z"], len(by_block(x, cut))), source
    pairs = [
        tuple(rig.room(f"{n}{k}", (side, 2, k), tokens) for k in (0, 1))
        for n, side in (("sum", EAST), ("square", WEST))
    ]
    ys = [Rows(other, n * tokens) if added else None for n in range(cut.count)]
    last = layernorm.residual_moments(rig.plan, 0, Rows(source), ys, z, *pairs, tokens)
    mean = rig.room("mean", (EAST, 1, 1), tokens)
    square = rig.room("meansquare", (WEST, 1, 0), tokens)
    scale = rig.room("scale", (WEST, 1, 1), tokens)
    for pair, target in zip(pairs, (mean, square), strict=True):
        layernorm.lane_mean(rig.plan, 0, pair[last], total, target, tokens)
    layernorm.spread(rig.plan, 0, mean, square, 1e-5, scale, tokens)
    gamma = rig.rows("gamma", (WEST, 0, 0), by_block(weight, cut))
    beta = rig.rows("beta", (EAST, 2, 1), by_block(bias, cut))
    halves = tuple(rig.room(f"h{s}", (s, 2, 0), len(by_block(x, cut)), "f16") for s in SIDES)
    layernorm.apply_layer_norm(
        rig.plan, 0, z, (mean, scale), Rows(gamma), Rows(beta), (cut.count, tokens), out, halves
    )
    rig.run()
    both = x.astype(np.float64) + (y if added else 0)
    centred = both - both.mean(axis=1, keepdims=True)
    expected = centred / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + 1e-5)
    expected = expected * weight + bias
    np.testing.assert_allclose(from_blocks(rig.read(out), cut, tokens), expected, 1e-4, 1e-5)
    for half in halves:
        found = from_blocks(rig.read(half), cut, tokens)
        np.testing.assert_allclose(found, expected, 2 * HALF_ULP, 1e-4)


@pytest.mark.parametrize("count", [8, 96])
def test_gelu(count):
    rig = KernelRig()
    x = 3 * normal(count, 320)
    copies = rig.rows("x", (EAST, 1, 1), x), rig.rows("again", (EAST, 0, 1), x)
    out = tuple(rig.room(f"h{s}", (s, 2, 1), count + 8, "f16") for s in SIDES)
    gelu(rig.plan, 0, copies, 0, count, out, 8)
    rig.run()
    inner = np.sqrt(2 / np.pi) * (x.astype(np.float64) + 0.044715 * x.astype(np.float64) ** 3)
    for buffer in out:
        found = rig.read(buffer)[8:]
        np.testing.assert_allclose(found, 0.5 * x * (1 + np.tanh(inner)), 1.01 * HALF_ULP, 1e-6)
        with_erf = 0.5 * x * (1 + erf(x / np.sqrt(2)))
        np.testing.assert_allclose(found, with_erf, 1.01 * HALF_ULP, 6e-4)
