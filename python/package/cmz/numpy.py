"""`.cmz` files of numpy arrays, with the functions of `safetensors.numpy`. BF16 and FP8 need the package ml_dtypes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Unpack

import numpy

from ._dtypes import ML_DTYPES, NUMPY
from ._errors import make
from ._files import OpenOptions, Path, safe_open
from ._progress import ProgressOption
from ._save import Part, save


def load_file(filename: Path, **options: Unpack[OpenOptions]) -> dict[str, numpy.ndarray]:
    """All tensors of a file. Options are those of `cmz.safe_open`."""
    with safe_open(filename, "np", **options) as file:
        return file.get_tensors()


def save_file(
    tensors: Mapping[str, numpy.ndarray],
    filename: Path,
    metadata: Mapping[str, str] | None = None,
    *,
    level: str = "fast",
    threads: int = 0,
    overwrite: bool = True,
    progress: ProgressOption = None,
) -> int:
    """Writes arrays to a file. It appears when it is complete and has been compared. Returns its length in bytes."""
    parts = {name: _part(name, array) for name, array in tensors.items()}
    return save(parts, filename, metadata, level, threads, overwrite, progress)


def _part(name: str, array: numpy.ndarray) -> Part:
    if not isinstance(array, (numpy.ndarray, numpy.generic)):
        raise make(2001, f"tensor {name!r} is of the type {type(array).__name__}", "make it an array of numpy", None, name)
    array = numpy.ascontiguousarray(array).reshape(array.shape)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    by_name = {numpy.dtype(kind): dtype for dtype, kind in NUMPY.items()}
    dtype = by_name.get(array.dtype) or {kind: dtype for dtype, kind in ML_DTYPES.items()}.get(array.dtype.name)
    if dtype is None:
        raise make(2001, f"tensor {name!r} has the type {array.dtype}", "convert it to a type that safetensors has", None, name)
    return Part(dtype, array.shape, array.reshape(-1).view(numpy.uint8).data)
