"""Conversions: what the command `cmz` does, with its rules. A checkpoint is a file, a folder, or an index of shards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from . import _native
from ._files import Path, open_all, open_archive, open_bases
from ._progress import Progress, ProgressOption, callback_for

__all__ = ["Progress"]


@dataclass(frozen=True)
class Compressed:
    """A file that was compressed."""

    source: str
    target: str
    #: Bytes.
    source_len: int
    len: int
    source_sha256: str
    tensors: int
    #: Whether an earlier run had made it.
    kept: bool

    @property
    def ratio(self) -> float:
        return self.len / max(1, self.source_len)


@dataclass(frozen=True)
class Decompressed:
    """A file that was restored."""

    source: str
    target: str
    #: Bytes.
    len: int
    sha256: str


@dataclass(frozen=True)
class Verified:
    """A file every byte of which is right."""

    file: str
    tensors: int
    blocks: int
    #: SHA-256 of the source, if it was decoded and is right.
    source_sha256: str | None


@dataclass(frozen=True)
class TensorInfo:
    """What a file says of a tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    #: Bytes when decoded, and as stored.
    byte_len: int
    stored_len: int
    blocks: int
    encoding: str
    file: str


@dataclass(frozen=True)
class Inspection:
    """What is in a checkpoint, from its indexes alone."""

    #: Bytes of the `.cmz` files, and of what the tensors decode to.
    len: int
    byte_len: int
    files: tuple[str, ...]
    metadata: dict[str, str]
    tensors: tuple[TensorInfo, ...] = field(repr=False)


@dataclass(frozen=True)
class TensorEstimate:
    """How small a tensor would become, about. A duplicate of an earlier one takes nothing."""

    name: str
    byte_len: int
    stored_len: int
    encoding: str


@dataclass(frozen=True)
class Estimate:
    """How small a checkpoint would become, about."""

    byte_len: int
    stored_len: int
    tensors: tuple[TensorEstimate, ...] = field(repr=False)

    @property
    def ratio(self) -> float:
        return self.stored_len / max(1, self.byte_len)


def compress(
    source: Path,
    target: Path | None = None,
    *,
    level: str = "fast",
    codec: str | None = None,
    threads: int = 0,
    overwrite: bool = False,
    verify: bool = True,
    copy_others: bool = True,
    keep_partial: bool = False,
    bases: Sequence[Path] = (),
    progress: ProgressOption = None,
) -> list[Compressed]:
    """Compresses a safetensors checkpoint. Every bit is decoded and compared before a file appears.

    `level`: "fast", which decodes at the speed of memory, or "max" for the smallest files. `copy_others`: whether a folder's other files
    are copied. What an interrupted run leaves is deleted, or with `keep_partial` continued by the next run.
    """
    os.stat(source)
    with callback_for(progress) as callback:
        done = _native.compress(
            os.fspath(source),
            None if target is None else os.fspath(target),
            level=level,
            codec=codec,
            threads=threads,
            overwrite=overwrite,
            verify=verify,
            copy_others=copy_others,
            keep_partial=keep_partial,
            bases=open_bases(bases),
            callback=callback,
        )
    return [
        Compressed(os.fspath(source), os.fspath(target), source_len, length, sha256, tensors, kept)
        for source, target, source_len, length, sha256, tensors, kept in done
    ]


def decompress(
    source: Path,
    target: Path | None = None,
    *,
    threads: int = 0,
    overwrite: bool = False,
    copy_others: bool = True,
    bases: Sequence[Path] = (),
    progress: ProgressOption = None,
) -> list[Decompressed]:
    """Restores the files that a checkpoint was compressed from, byte for byte, checked by their SHA-256."""
    os.stat(source)
    with callback_for(progress) as callback:
        done = _native.decompress(
            os.fspath(source),
            None if target is None else os.fspath(target),
            threads=threads,
            overwrite=overwrite,
            copy_others=copy_others,
            bases=open_bases(bases),
            callback=callback,
        )
    return [Decompressed(os.fspath(source), os.fspath(target), length, sha256) for source, target, length, sha256 in done]


def verify(
    path: Path, *, decode: bool = True, threads: int = 0, bases: Sequence[Path] = (), progress: ProgressOption = None
) -> list[Verified]:
    """Proves that every byte of a checkpoint is right; with `decode`, that it decodes to its source.

    Raises the first error that it finds, a `CorruptError` with tensor, block and offset; `others` of it has the rest.
    """
    os.stat(path)
    with callback_for(progress) as callback:
        done = _native.verify(os.fspath(path), decode=decode, threads=threads, bases=open_bases(bases), callback=callback)
    errors = [error for *_, found in done for error in found]
    if errors:
        errors[0].others = errors[1:]
        raise errors[0]
    return [Verified(os.fspath(file), tensors, blocks, sha256) for file, tensors, blocks, sha256, _ in done]


def inspect(path: Path) -> Inspection:
    """What is in a checkpoint. Nothing is decoded."""
    places = open_all(path)
    archives = {os.fspath(archive.path): archive for archive in places.values()}
    if not archives:
        archives = {os.fspath(file): open_archive(file) for file in _native.files_of(os.fspath(path))}
    tensors = []
    for file, archive in archives.items():
        for name in archive.names:
            dtype, shape, byte_len, stored_len, blocks, encoding, _ = archive.info(name)
            tensors.append(TensorInfo(name, dtype, tuple(shape), byte_len, stored_len, blocks, encoding, file))
    metadata: dict[str, str] = {}
    for archive in archives.values():
        metadata |= archive.metadata
    length, byte_len = sum(archive.file_len for archive in archives.values()), sum(tensor.byte_len for tensor in tensors)
    return Inspection(length, byte_len, tuple(archives), metadata, tuple(tensors))


def estimate(path: Path, *, level: str = "fast", threads: int = 0, progress: ProgressOption = None) -> Estimate:
    """How small a safetensors checkpoint would become, from samples. Nothing is written."""
    os.stat(path)
    tensors: list[TensorEstimate] = []
    with callback_for(progress) as callback:
        for file in _native.files_of(os.fspath(path)):
            done = _native.estimate(os.fspath(file), level=level, threads=threads, callback=callback)
            tensors += [TensorEstimate(*tensor) for tensor in done]
    return Estimate(sum(t.byte_len for t in tensors), sum(t.stored_len for t in tensors), tuple(tensors))
