"""Rotary tables as rows of lanes: what the host writes to the chips."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cluster.model.graph.rotary import RotaryTable

F32 = npt.NDArray[np.float32]


def rotary_rows(positions: Sequence[int], table: RotaryTable, lanes: int) -> tuple[F32, F32]:
    """(cosine, signed sine) rows [positions, lanes] for interleaved pairs, repeated per head.

    The sine is negative in even lanes: out = x * cos + partner * sin.
    """
    head_dim = table.width
    cosine, sine = table.turns(np.array(positions))
    pairs = np.stack([-sine, sine], axis=2).reshape(len(positions), head_dim)
    whole = lanes // head_dim
    rows = np.zeros((2, len(positions), lanes), np.float32)
    rows[0, :, : whole * head_dim] = np.tile(np.repeat(cosine, 2, axis=1), whole)
    rows[1, :, : whole * head_dim] = np.tile(pairs, whole)
    return rows[0], rows[1]
