"""`.cmz` files of torch tensors, with the functions of `safetensors.torch`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Unpack

import torch

from ._dtypes import TORCH
from ._errors import make
from ._files import CheckpointMapping, CheckpointOptions, OpenOptions, Path, safe_open
from ._frameworks import tensor_memory
from ._progress import ProgressOption
from ._save import Part, save

#: Bytes of tensors that a device decodes together, unless one alone is larger.
_GROUP_LEN = 256 << 20

_DTYPES = {getattr(torch, kind): dtype for dtype, kind in TORCH.items() if hasattr(torch, kind)}


def load_file(filename: Path, device: object = "cpu", **options: Unpack[OpenOptions]) -> dict[str, torch.Tensor]:
    """All tensors of a file. Options are those of `cmz.safe_open`."""
    with safe_open(filename, "pt", device, **options) as file:
        return file.get_tensors()


def iter_tensors(path: Path, device: object = "cpu", **options: Unpack[CheckpointOptions]) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of a file, a folder or an index of shards, one at a time. Each owns its memory.

    On a CUDA device tensors are decoded some at a time, up to 256 MiB unless one alone is larger.
    """
    tensors = CheckpointMapping(path, "pt", lambda _: device, **options)
    yield from ((name, tensors[name]) for name in tensors.dequantized)
    for names in _groups(tensors):
        loader, archive = tensors.loader(names[0]), tensors.archive(names[0])
        if loader is None:
            yield from ((name, tensors[name]) for name in names)
        else:
            yield from zip(names, loader.load(archive, [(name, None) for name in names]))


def _groups(tensors: CheckpointMapping) -> Iterator[list[str]]:
    """Names of tensors that follow each other in a file, to be decoded together."""

    def place(name: str) -> tuple[str, int]:
        archive = tensors.archive(name)
        return str(archive.path), archive.info(name)[-1]

    group: list[str] = []
    byte_len = 0
    for name in sorted(tensors.keys() - tensors.dequantized, key=place):
        archive = tensors.archive(name)
        _, _, added, *_ = archive.info(name)
        if group and (archive is not tensors.archive(group[0]) or byte_len + added > _GROUP_LEN):
            yield group
            group, byte_len = [], 0
        group.append(name)
        byte_len += added
    if group:
        yield group


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
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise make(2001, f"tensor {name!r} is of the type {type(tensor).__name__}", "make it a tensor of torch", None, name)
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
    return Part(dtype, shape, tensor_memory(tensor))
