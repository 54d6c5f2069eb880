"""Decoded bytes as arrays of numpy, torch or jax, each imported when it is first needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._dtypes import BITS, ML_DTYPES, NUMPY, TORCH, array_shape
from ._errors import make

_NAMES = {"pt": "torch", "torch": "torch", "pytorch": "torch", "np": "numpy", "numpy": "numpy", "jax": "jax", "flax": "jax"}


def framework(name: str) -> str:
    """The module that a framework's name stands for."""
    if name not in _NAMES:
        raise make(2001, f"there is no framework {name!r}", f"one of {', '.join(_NAMES)}")
    return _NAMES[name]


def check_device(device: object) -> None:
    """Refuses every device but the CPU."""
    if str(device).split(":")[0] not in ("cpu", "auto"):
        raise make(1004, f"device {str(device)!r}: this build decodes on the CPU only", 'load with device="cpu", then move the tensor')


def array(module: str, memory: bytearray, start: int, byte_len: int, dtype: str, shape: Sequence[int]) -> Any:
    """The array of `module` that is the `byte_len` bytes of `memory` from `start` on. It keeps the memory alive."""
    shape = array_shape(dtype, shape, byte_len)
    if module == "torch":
        return _torch_array(memory, start, byte_len, dtype, shape)
    array = _numpy_array(memory, start, byte_len, dtype, shape)
    if module == "jax":
        import jax.numpy

        # A copy, since jax takes an array for one that never changes.
        return jax.numpy.array(array)
    return array


def _torch_array(memory: bytearray, start: int, byte_len: int, dtype: str, shape: tuple[int, ...]) -> Any:
    import torch

    kind = torch_dtype(dtype)
    if byte_len == 0:
        return torch.empty(shape, dtype=kind)
    return torch.frombuffer(memory, dtype=torch.uint8, count=byte_len, offset=start).view(kind).view(shape)


def torch_dtype(dtype: str) -> Any:
    """torch's type of the elements; bytes where torch has none."""
    import torch

    kind = getattr(torch, TORCH.get(dtype, "uint8"), None)
    if kind is None:
        raise make(4004, f"this version of torch has no type for {dtype}", "use a newer torch")
    return kind


def numpy_dtype(dtype: str) -> Any:
    """numpy's type of the elements, or that of ml_dtypes; bytes where neither has one."""
    import numpy

    if dtype not in ML_DTYPES:
        return numpy.dtype(NUMPY.get(dtype, "u1"))
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError(f"numpy has no type for {dtype}: install the package ml_dtypes") from None
    return numpy.dtype(getattr(ml_dtypes, ML_DTYPES[dtype]))


def _numpy_array(memory: bytearray, start: int, byte_len: int, dtype: str, shape: tuple[int, ...]) -> Any:
    import numpy

    # By way of bytes: types of ml_dtypes do not go through the buffer protocol.
    return numpy.frombuffer(memory, numpy.uint8, byte_len, start).view(numpy_dtype(dtype)).reshape(shape)


def dtype_of(module: str, dtype: str) -> Any:
    """A framework's type of the elements."""
    return torch_dtype(dtype) if module == "torch" else numpy_dtype(dtype)


def is_floating_point(dtype: str) -> bool:
    """Whether the elements are real floating-point numbers."""
    return dtype == "BF16" or (dtype in BITS and dtype[0] == "F")
