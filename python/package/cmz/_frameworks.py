"""Decoded bytes as arrays of numpy, torch or jax, each imported when it is first needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import _native
from ._dtypes import BITS, ML_DTYPES, NUMPY, TORCH, array_shape
from ._errors import make

#: Addresses of decoded arrays are multiples of this, in bytes.
_ALIGNMENT = 64

_NAMES = {"pt": "torch", "torch": "torch", "pytorch": "torch", "np": "numpy", "numpy": "numpy", "jax": "jax", "flax": "jax"}


def framework(name: str) -> str:
    """The module that a framework's name stands for."""
    if name not in _NAMES:
        raise make(2001, f"there is no framework {name!r}", f"one of {', '.join(_NAMES)}")
    return _NAMES[name]


def read(module: str, archive: _native.Archive, wanted: Sequence[tuple[str, tuple[int, int] | None]], threads: int) -> list[Any]:
    """New arrays of `module` with tensors of a file, or rows of them, from and to."""
    places, results = [], []
    for name, rows in wanted:
        dtype, shape, byte_len, *_ = archive.info(name)
        start = 0
        if rows is not None:
            row = byte_len // shape[0]
            start, byte_len, shape = row * rows[0], row * (rows[1] - rows[0]), [rows[1] - rows[0], *shape[1:]]
        memory, result = new(module, dtype, array_shape(dtype, shape, byte_len), byte_len)
        places.append((name, start, memory))
        results.append(result)
    archive.read_into(places, threads)
    return [finished(module, result) for result in results]


def finished(module: str, result: Any) -> Any:
    """What `new` has made, once it is filled."""
    if module == "jax":
        import jax.numpy

        # A copy, since jax takes an array for one that never changes.
        return jax.numpy.array(result)
    return result


def new(module: str, dtype: str, shape: tuple[int, ...], byte_len: int) -> tuple[Any, Any]:
    """Memory that holds anything, and the array that it is: of torch or of numpy."""
    if module == "torch":
        import torch

        tensor = torch.empty(shape, dtype=torch_dtype(dtype))
        return tensor_memory(tensor), tensor
    import numpy

    # Not initialized, and aligned as frameworks want it.
    memory = numpy.empty(byte_len + _ALIGNMENT, numpy.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    memory = memory[start : start + byte_len]
    # By way of bytes: types of ml_dtypes do not go through the buffer protocol.
    return memory, memory.view(numpy_dtype(dtype)).reshape(shape)


def tensor_memory(tensor: Any) -> memoryview:
    """The bytes of a contiguous tensor of torch on the CPU, which must live as long."""
    # It takes a tenth of the time of importing this package.
    import ctypes

    memory = (ctypes.c_ubyte * tensor.nbytes).from_address(tensor.data_ptr()) if tensor.nbytes else bytearray()
    return memoryview(memory).cast("B")


def host_memory(out: Any, byte_len: int) -> memoryview:
    """Memory of the caller that is to be written, as bytes: a contiguous tensor of torch on the CPU, or what has the buffer protocol."""
    if hasattr(out, "data_ptr"):
        if out.device.type != "cpu" or not out.is_contiguous():
            raise make(2001, "the output is not on the CPU, or not contiguous", 'open the file with device="cuda" for a GPU')
        out = tensor_memory(out)
    memory = memoryview(out)
    if memory.readonly or not memory.c_contiguous:
        raise make(2001, "the output is not contiguous, or may not be written")
    if memory.nbytes != byte_len:
        raise make(2001, f"the output has {memory.nbytes} bytes, the tensor {byte_len}")
    return memory.cast("B") if byte_len else memoryview(bytearray())


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


def dtype_of(module: str, dtype: str) -> Any:
    """A framework's type of the elements."""
    return torch_dtype(dtype) if module == "torch" else numpy_dtype(dtype)


def is_floating_point(dtype: str) -> bool:
    """Whether the elements are real floating-point numbers."""
    return dtype == "BF16" or (dtype in BITS and dtype[0] == "F")
