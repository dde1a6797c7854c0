"""Reading a GGUF file safely: metadata and memory-mapped tensors, or a ModelError in one line.

The reader of the `gguf` package trusts its file: a length past the end gives empty arrays instead
of an error, so a damaged count makes it loop nearly for ever. Reads here are bounded by the file.
"""

from pathlib import Path
from struct import Struct
from typing import Any, TypeVar

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, ReaderField, ReaderTensor, quants
from numpy.typing import DTypeLike, NDArray

from cluster.errors import ModelError
from cluster.model.fetch import cache_folder

T = TypeVar("T")
_CHUNK_BYTES = 1 << 20  # of float32 made at a time: what stays in a cache
_OURS = "the file is damaged or incomplete: fetch it again (`lpu fetch smollm2`)"
_THEIRS = "the file is damaged, incomplete, or of a kind that is not known here"


class _BoundedReader(GGUFReader):
    """GGUFReader that fails at the end of the file and is quick with long arrays."""

    def _get(
        self, offset: int, dtype: DTypeLike, count: int = 1, override_order: Any = None
    ) -> NDArray[Any]:
        order = override_order or self.byte_order
        kind = np.dtype(dtype)
        kind = kind if order == "I" else kind.newbyteorder(order)
        return np.frombuffer(self.data, kind, int(count), int(offset))

    def _get_field_parts(
        self, orig_offs: int, raw_type: int
    ) -> tuple[int, list[NDArray[Any]], list[int], list[GGUFValueType]]:
        if raw_type != GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        item = GGUFValueType(self._get(orig_offs, np.uint32)[0])
        length = int(self._get(orig_offs + 4, np.uint64)[0])
        start, types = orig_offs + 12, [GGUFValueType.ARRAY, item]
        scalar = self.gguf_scalar_to_np.get(item)
        if scalar is not None:
            values = self._get(start, scalar, length)
            return 12 + values.nbytes, [values], [0], types
        if item == GGUFValueType.STRING:
            end, strings = self._strings(start, length)
            return end - orig_offs, strings, list(range(length)), types
        raise ValueError(f"array of {item.name}")

    def _strings(self, start: int, count: int) -> tuple[int, list[NDArray[Any]]]:
        """Return the offset after `count` strings, and the bytes of each."""
        read_length = Struct("<Q" if self.byte_order == "I" else ">Q").unpack_from
        buffer, strings = self.data.data, []
        for _ in range(count):
            (length,) = read_length(buffer, start)
            strings.append(np.frombuffer(self.data, np.uint8, length, start + 8))
            start += 8 + length
        return start, strings


def _dequantised(data: NDArray[Any], kind: GGMLQuantizationType) -> NDArray[np.float32]:
    """Rows of a tensor as float32; raises NotImplementedError for a type that is not known.

    The library's own function takes 16 rows at a time, and three times as long.
    """
    known = getattr(quants, kind.name, None)
    if known is None or data.ndim == 1:
        return quants.dequantize(data, kind)
    if data.ndim > 2:
        flat = _dequantised(data.reshape(-1, data.shape[-1]), kind)
        return flat.reshape(*data.shape[:-1], -1)
    known.init_grid()
    values = np.empty((len(data), data.shape[1] // known.type_size * known.block_size), np.float32)
    rows = max(1, _CHUNK_BYTES // values.itemsize // max(1, values.shape[1]))
    for first in range(0, len(data), rows):
        part = slice(first, first + rows)
        values[part] = known.dequantize_rows(data[part])
    return values


class GgufFile:
    """An open GGUF file. Raises ModelError when it is missing, damaged or no GGUF at all."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        reader = self._open()
        self._fields: dict[str, ReaderField] = dict(reader.fields)
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.first_tensor_offset = reader.data_offset
        if reader.byte_order != "I":
            raise self.error("is big-endian", "`gguf-convert-endian FILE little` converts it")
        parts = self.value("split.count", int, 1)
        if parts > 1:
            part = self.value("split.no", int, 0) + 1
            join = "`llama-gguf-split --merge FIRST OUT` joins the parts"
            raise self.error(f"is part {part} of {parts} of a model", join)
        self._check_layout(reader.tensors)

    def _open(self) -> GGUFReader:
        try:
            with np.errstate(over="raise"):
                return _BoundedReader(self.path)
        except OSError as error:
            reason = error.strerror or str(error)
            raise self.error(f"cannot be read: {reason}", "check the path") from error
        except MemoryError as error:
            raise self.error("asks for more memory than there is") from error
        except Exception as error:  # the gguf package raises all sorts on damaged bytes
            raise self.error(f"is no readable GGUF file ({error})") from error

    def _check_layout(self, tensors: list[ReaderTensor]) -> None:
        end = 0
        for tensor in sorted(tensors, key=lambda t: t.data_offset):
            if tensor.data_offset < end:
                raise self.error(f"tensor {tensor.name} overlaps another")
            end = tensor.data_offset + tensor.n_bytes

    def error(self, problem: str, advice: str = "") -> ModelError:
        """Return the error to raise about this file."""
        ours = self.path.absolute().parent == cache_folder().absolute()
        return ModelError(str(self.path), problem, advice or (_OURS if ours else _THEIRS))

    def value(self, key: str, kind: type[T], default: T | None = None) -> T:
        """Return metadata `key`, which must be of type `kind` (an int may serve as a float).

        Raises ModelError when it is of another type, or absent and without default.
        """
        if key not in self._fields:
            if default is None:
                raise self.error(f"has no '{key}'")
            return default
        found = self.raw(key)
        if kind is float and type(found) is int:
            found = float(found)
        if type(found) is not kind:
            raise self.error(f"'{key}' is {type(found).__name__}, expected {kind.__name__}")
        return found

    def metadata_keys(self) -> frozenset[str]:
        """Return the keys of all metadata."""
        return frozenset(self._fields)

    def raw(self, key: str) -> Any:
        """Return metadata `key` of whatever type; raises ModelError when it cannot be read."""
        try:
            return self._fields[key].contents()
        except Exception as error:  # damaged bytes, such as invalid UTF-8
            raise self.error(f"'{key}' cannot be read ({error})") from error

    def tensor_names(self) -> frozenset[str]:
        """Return the names of all tensors."""
        return frozenset(self._tensors)

    def count(self, key: str) -> int:
        """Return the length of the list under a key, 0 where there is none."""
        return len(self._fields[key].data) if key in self._fields else 0

    def check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Raise ModelError unless tensor `name` exists with this shape, [out, in]."""
        if name not in self._tensors:
            raise self.error(f"has no tensor {name}")
        found = tuple(int(n) for n in reversed(self._tensors[name].shape))
        if found != shape:
            raise self.error(f"tensor {name} is {list(found)}, expected {list(shape)}")

    def rows(self, name: str, rows: slice | list[int] = slice(None)) -> NDArray[np.float32]:
        """Return a fresh float32 copy of the chosen rows of a tensor; all are finite.

        Raises ModelError on an unknown quantisation or a value that is not finite.
        """
        tensor = self._tensors[name]
        try:
            with np.errstate(all="ignore"):
                array = _dequantised(tensor.data[rows], tensor.tensor_type)
        except NotImplementedError as error:
            kind = tensor.tensor_type.name
            raise self.error(
                f"tensor {name} is of type {kind}, which is not supported",
                "use a GGUF file in F32, F16, BF16, Q8_0 or Q4",
            ) from error
        if not np.isfinite(array).all():
            raise self.error(f"tensor {name} holds NaN or infinity")
        return np.require(array, np.float32, ["C", "W"])
