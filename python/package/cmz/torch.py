"""`.cmz` files of torch tensors, with the functions of `safetensors.torch`."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ._dtypes import TORCH
from ._errors import make
from ._files import CheckpointMapping, Path, safe_open
from ._frameworks import check_device
from ._progress import ProgressOption
from ._save import Part, save

_DTYPES = {getattr(torch, kind): dtype for dtype, kind in TORCH.items() if hasattr(torch, kind)}


def load_file(filename: Path, device: object = "cpu", **options: Any) -> dict[str, torch.Tensor]:
    """All tensors of a file. Options are those of `cmz.safe_open`."""
    with safe_open(filename, "pt", device, **options) as file:
        return file.get_tensors()


def iter_tensors(path: Path, device: object = "cpu", **options: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of a file, a folder or an index of shards, one at a time. Each owns its memory."""
    check_device(device)
    yield from CheckpointMapping(path, "pt", **options).items()


def save_file(
    tensors: Mapping[str, torch.Tensor],
    filename: Path,
    metadata: Mapping[str, str] | None = None,
    *,
    level: str = "fast",
    threads: int = 0,
    overwrite: bool = True,
    progress: ProgressOption = None,
) -> int:
    """Writes tensors to a file. It appears when it is complete and has been compared. Returns its length in bytes.

    Tensors that share memory, or are not contiguous, are stored as what they hold; equal ones are stored once.
    """
    # They live until the file is written: the parts point into them.
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    parts = {name: _part(name, tensor) for name, tensor in held.items()}
    return save(parts, filename, metadata, level, threads, overwrite, progress)


def _part(name: str, tensor: torch.Tensor) -> Part:
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise make(2001, f"tensor {name!r} has the type {tensor.dtype}", "convert it to a type that safetensors has", None, name)
    shape = list(tensor.shape)
    if dtype == "F4":
        if not shape:
            raise make(2001, f"tensor {name!r} packs two elements, but has no dimension", None, None, name)
        shape[-1] *= 2
    memory = (ctypes.c_ubyte * tensor.nbytes).from_address(tensor.data_ptr()) if tensor.nbytes else b""
    return Part(dtype, shape, memoryview(memory).cast("B"))
