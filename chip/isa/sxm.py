"""SXM: moves elements between lanes. A lane map is a table of the program. [ISCA20]

Maps act on whole elements of an aligned stream group: each of its byte streams moves alike.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from chip.isa.op import op

Vectors = npt.NDArray[Any]
Map = npt.NDArray[np.int64]
FIELDS = "dtype:dtype map:map a:src out:dst"
ZERO = 0xFFFF  # entry of a distribute map that fills its lane with zero


@op("sxm.permute", "sxm", FIELDS, "Permute map", timing="sxm.permute")
def permute(map: Map, a: Vectors) -> Vectors:
    """out[lane] = a[map[lane]]; the map is a bijection over all lanes."""
    return np.take(a, map, axis=1)


@op("sxm.distribute", "sxm", FIELDS, "Distribute map", timing="sxm.distribute")
def distribute(map: Map, a: Vectors) -> Vectors:
    """out[lane] = a[map[lane]] inside each 16-lane superlane; the map may replicate or zero."""
    superlanes = a.reshape(len(a), -1, len(map))
    out = np.take(superlanes, np.where(map == ZERO, 0, map), axis=2)
    out[:, :, map == ZERO] = 0
    return out.reshape(a.shape)
