"""Tensors on CUDA devices: torch allocates them, the device decodes into them, on torch's current stream."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeAlias

from . import _native
from ._dtypes import array_shape
from ._errors import CmzError, make
from ._frameworks import torch_dtype

#: A tensor's name and the rows that are wanted, from and to; all of it if None.
Wanted: TypeAlias = tuple[str, tuple[int, int] | None]

_ON_CPU = 'load with device="cpu", or device="auto", which takes a GPU where there is one'


@cache
def gpu(ordinal: int) -> _native.Gpu:
    """The decoder of a device."""
    try:
        return _native.Gpu(ordinal)
    except CmzError as error:
        error.help = _ON_CPU
        raise


def cuda_device(device: object, module: str) -> int | None:
    """Number of the CUDA device that a device's name means; None is the CPU."""
    kind, _, index = ("cuda", "", device) if type(device) is int else str(device).partition(":")
    if kind == "cpu":
        return None
    if kind == "auto":
        return _any_device() if module == "torch" else None
    if kind != "cuda":
        raise make(1004, f"device {str(device)!r} has no decoder", 'one of "cpu", "cuda", "cuda:N", "auto"')
    if module != "torch":
        raise make(2001, f"arrays of {module} are decoded on the CPU only", 'use framework="pt" for a GPU')
    if index == "":
        gpu(0)
        return _usable(torch_current_device())
    if not str(index).isdecimal():
        raise make(2001, f"device {str(device)!r}", 'one of "cpu", "cuda", "cuda:N", "auto"')
    gpu(int(index))
    return _usable(int(index))


def _any_device() -> int | None:
    try:
        return cuda_device("cuda", "torch")
    except CmzError as error:
        if error.code == "CMZ1004":
            return None
        raise


def _usable(ordinal: int) -> int:
    if not torch_has_devices():
        raise make(1004, "torch has no CUDA device, though the driver has", "install a torch that is built with CUDA")
    gpu(ordinal)
    return ordinal


def torch_has_devices() -> bool:
    """Whether torch can use CUDA."""
    import torch

    return torch.cuda.is_available()


def torch_current_device() -> int:
    """Number of the device that torch uses if none is named."""
    import torch

    return torch.cuda.current_device() if torch.cuda.is_available() else 0


def torch_device(ordinal: int) -> Any:
    """torch's name of a device."""
    import torch

    return torch.device("cuda", ordinal)


def current_stream(ordinal: int) -> int:
    """torch's current stream on a device."""
    import torch

    return torch.cuda.current_stream(ordinal).cuda_stream


def empty(shape: Sequence[int], dtype: Any, ordinal: int) -> Any:
    """A tensor of torch on a device, which holds anything."""
    import torch

    return torch.empty(tuple(shape), dtype=dtype, device=torch_device(ordinal))


class Loader:
    """Decodes tensors of files into new tensors on a device."""

    def __init__(self, ordinal: int, threads: int) -> None:
        self.ordinal, self._threads = ordinal, threads

    def load(self, archive: _native.Archive, wanted: Sequence[Wanted]) -> list[Any]:
        """New tensors; they are filled when this returns."""
        tensors = [new_tensor(archive, name, rows, self.ordinal) for name, rows in wanted]
        addresses = [tensor.data_ptr() for tensor in tensors]
        gpu(self.ordinal).load(archive, wanted, addresses, current_stream(self.ordinal), self._threads)
        return tensors


def new_tensor(archive: _native.Archive, name: str, rows: tuple[int, int] | None, ordinal: int) -> Any:
    """A tensor on a device with room for one of a file, or for rows of it."""
    dtype, shape, byte_len, *_ = archive.info(name)
    if rows is not None:
        byte_len, shape = byte_len // shape[0] * (rows[1] - rows[0]), [rows[1] - rows[0], *shape[1:]]
    return empty(array_shape(dtype, shape, byte_len), torch_dtype(dtype), ordinal)


class Resident:
    """A tensor, or rows of it, that lies on a device as it is stored. Making it decodes it into `address` and waits."""

    def __init__(self, archive: _native.Archive, wanted: Wanted, ordinal: int, threads: int, address: int, stream: int) -> None:
        device = gpu(ordinal)
        if device.is_capturing(stream):
            raise make(2001, "the first decode of a tensor cannot be captured", "decode it once before the capture", None, wanted[0])
        self._plan = device.plan(archive, wanted, threads)
        self._plan.decode(address, stream)
        self._plan.check(stream)

    @property
    def device_len(self) -> int:
        """Bytes of device memory that it holds."""
        return self._plan.device_len

    def decode(self, address: int, stream: int) -> None:
        """Decodes it behind the work of a stream. Nothing is allocated, and nothing waits."""
        self._plan.decode(address, stream)


def output(out: Any, dtype: str, byte_len: int) -> int:
    """Address of memory that is to be written: a tensor of torch, or what has `__cuda_array_interface__`."""
    if hasattr(out, "data_ptr"):
        address, contiguous, found = out.data_ptr(), out.is_contiguous(), out.nbytes
        if str(out.dtype) not in (str(torch_dtype(dtype)), "torch.uint8"):
            raise make(2001, f"the output is of {out.dtype}, the tensor of {dtype}", f"pass one of {torch_dtype(dtype)}")
    elif interface := getattr(out, "__cuda_array_interface__", None):
        (address, read_only), strides = interface["data"], interface.get("strides")
        size = int(interface["typestr"][2:])
        contiguous, found = not read_only, size
        for extent in reversed(interface["shape"]):
            contiguous = contiguous and (strides is None or extent < 2 or strides[-1] == found)
            strides, found = strides and strides[:-1], found * extent
    else:
        raise make(2001, f"{type(out).__name__} is no tensor on a GPU", "pass a torch tensor, or what has __cuda_array_interface__")
    if not contiguous:
        raise make(2001, "the output is not contiguous, or may not be written")
    if found != byte_len:
        raise make(2001, f"the output has {found} bytes, the tensor {byte_len}")
    return address


def stream_handle(stream: Any, ordinal: int) -> int:
    """The driver's handle of a stream: a number, or an object with `cuda_stream` or `__cuda_stream__`; torch's current one if None."""
    if stream is None:
        return current_stream(ordinal)
    if hasattr(stream, "cuda_stream"):
        return stream.cuda_stream
    if hasattr(stream, "__cuda_stream__"):
        return stream.__cuda_stream__()[1]
    return int(stream)
