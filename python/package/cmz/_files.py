"""Reading files."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from math import prod
from operator import index as index_of
from stat import S_ISDIR
from types import EllipsisType
from typing import Any, TypeAlias, TypedDict

from . import _frameworks, _native
from ._dtypes import BITS, array_shape
from ._errors import TensorNotFoundError, make
from ._frameworks import dtype_of, finished, host_memory, is_floating_point, new, read
from ._gpu import Loader, Resident, cuda_device, output, stream_handle, torch_device

Path: TypeAlias = str | os.PathLike[str]
Index: TypeAlias = int | slice | EllipsisType | None | tuple[Any, ...]


class OpenOptions(TypedDict, total=False):
    """Options of everything that reads: those of `safe_open`."""

    io: str
    verify: str
    bases: Sequence[Path]
    threads: int


class CheckpointOptions(OpenOptions, total=False):
    """Options of what reads whole checkpoints: those of `CheckpointMapping`."""

    dequantize: bool


def open_archive(path: Path, *, io: str = "auto", verify: str = "stored", bases: Sequence[Path] = ()) -> _native.Archive:
    """Opens a file. `bases` are files that its tensors may be stored against, each after its own."""
    if S_ISDIR(os.stat(path).st_mode):
        raise make(
            1001, f"{os.fspath(path)!r} is a folder", "name a file in it, or use cmz.CheckpointMapping or cmz.torch.iter_tensors", path
        )
    return _native.Archive(os.fspath(path), io=io, verify=verify, bases=open_bases(bases))


def open_bases(bases: Sequence[Path]) -> list[_native.Archive]:
    """Opens files that others are stored against, each after its own."""
    opened: list[_native.Archive] = []
    for base in bases:
        os.stat(base)
        for file in _native.files_of(os.fspath(base)):
            opened.append(_native.Archive(file, bases=opened))
    return opened


class Slice:
    """A tensor that has not been read. Indexing it decodes no other blocks than those of the rows that are asked for."""

    def __init__(self, archive: _native.Archive, name: str, module: str, threads: int = 0, loader: Loader | None = None) -> None:
        self._archive, self._name, self._module, self._threads, self._loader = archive, name, module, threads, loader
        self._dtype, shape, self._byte_len, *_ = archive.info(name)
        self._shape = list(shape)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}: {self._dtype} {self._shape}>"

    def get_shape(self) -> list[int]:
        """Elements along each dimension, as the file says."""
        return list(self._shape)

    def get_dtype(self) -> str:
        """The element type's safetensors name."""
        return self._dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._shape)

    @property
    def ndim(self) -> int:
        return len(self._shape)

    @property
    def dtype(self) -> Any:
        """The framework's element type."""
        return dtype_of(self._module, self._dtype)

    def is_floating_point(self) -> bool:
        return is_floating_point(self._dtype)

    def __len__(self) -> int:
        if not self._shape:
            raise TypeError("a tensor without dimensions has no length")
        return self._shape[0]

    def __getitem__(self, index: Index) -> Any:
        first, *rest = (index if isinstance(index, tuple) else (index,)) or (...,)
        rows = self._shape[0] if self._shape else 0
        if not isinstance(first, (bool, int, slice, list)) and hasattr(first, "__index__") and not getattr(first, "shape", ()):
            # An integer of numpy or torch.
            first = index_of(first)
        whole = array_shape(self._dtype, self._shape, self._byte_len)
        if rows == 0 or not whole or whole[0] != rows or not isinstance(first, (int, slice)) or isinstance(first, bool):
            return self._whole()[index]
        if isinstance(first, int):
            if not -rows <= first < rows:
                raise IndexError(f"row {first} of {rows}")
            part = self._rows(first % rows, first % rows + 1)
            return part[(0, *rest)]
        start, stop, step = first.indices(rows)
        if step < 1:
            raise ValueError("steps go forward")
        part = self._rows(start, max(start, stop))
        return part[(slice(None, None, step), *rest)] if step > 1 or rest else part

    def rows_of(self, rows: slice | None) -> tuple[int, int] | None:
        """The first of the rows in a slice, and the one behind the last; None if they are the whole tensor."""
        if rows is None:
            return None
        if not self._shape:
            raise make(2001, "a tensor without dimensions has no rows", None, None, self._name)
        start, stop, step = rows.indices(self._shape[0])
        if step != 1:
            raise make(2001, "rows that do not follow each other", "ask for a slice without a step", None, self._name)
        return None if (start, stop) == (0, self._shape[0]) else (start, max(start, stop))

    def byte_len(self, rows: tuple[int, int] | None) -> int:
        """Bytes of the tensor, or of rows of it."""
        return self._byte_len if rows is None else self._byte_len // self._shape[0] * (rows[1] - rows[0])

    def read_into(self, memory: Any, rows: tuple[int, int] | None) -> None:
        """Decodes the tensor, or rows of it, into what has the buffer protocol and as many bytes."""
        if rows is None:
            self._archive.read_into([(self._name, 0, memory)], self._threads)
        else:
            self._archive.read_into([(self._name, self.byte_len((0, rows[0])), memory)], self._threads)

    def _whole(self) -> Any:
        return self._read(None)

    def _rows(self, start: int, stop: int) -> Any:
        return self._read(None if (start, stop) == (0, self._shape[0]) else (start, stop))

    def _read(self, rows: tuple[int, int] | None) -> Any:
        if self._loader is not None:
            return self._loader.load(self._archive, [(self._name, rows)])[0]
        return read(self._module, self._archive, [(self._name, rows)], self._threads)[0]


class View(Slice):
    """Weights that quantized tensors of a file stand for, to be computed in whole or in part. The first index reads the tensors; they stay
    in memory as long as this does. Computed on the CPU.
    """

    def __init__(self, archive: _native.Archive, name: str, module: str, threads: int = 0, device: Any = None) -> None:
        self._archive, self._name, self._module, self._threads, self._loader = archive, name, module, threads, None
        self._dtype, self._shape, self._layout, self._parts = archive.view_info(name)
        self._byte_len = prod(self._shape) * BITS[self._dtype] // 8
        self._open: _native.View | None = None
        self._device = device

    @property
    def layout(self) -> str:
        """How the weights come from the tensors: the name of a layout that docs/import.md lists."""
        return self._layout

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the tensors that they come from."""
        return tuple(self._parts)

    def read_into(self, memory: Any, rows: tuple[int, int] | None) -> None:
        """Computes the weights, or rows of them, into what has the buffer protocol and as many bytes."""
        if self._open is None:
            self._open = self._archive.open_view(self._name)
        start, stop = rows or (0, self._shape[0])
        self._open.read_into(start, stop, memory, self._threads)

    def _read(self, rows: tuple[int, int] | None) -> Any:
        shape = self._shape if rows is None else [rows[1] - rows[0], *self._shape[1:]]
        memory, result = new(self._module, self._dtype, tuple(shape), self.byte_len(rows))
        self.read_into(memory, rows)
        result = finished(self._module, result)
        return result if self._device is None else result.to(self._device)


class safe_open:
    """Opens a `.cmz` file, with the methods of `safetensors.safe_open`. Every tensor owns its memory.

    `device`: "cpu"; "cuda", "cuda:N" or N, where the device decodes into tensors of torch, on torch's current stream; "auto", a CUDA device
    where torch and the driver have one. `io`: "auto", "mmap", "pread" or "memory".
    `verify`: which checksums reads verify, "stored", "full" or "none". `bases`: files that tensors are stored against.
    `threads`: that decode, 0 for one a core. All methods may be called from several threads.
    """

    def __init__(
        self,
        filename: Path,
        framework: str = "pt",
        device: object = "cpu",
        *,
        io: str = "auto",
        verify: str = "stored",
        bases: Sequence[Path] = (),
        threads: int = 0,
    ) -> None:
        self._module, self._threads = _frameworks.framework(framework), threads
        self._loader = make_loader(device, self._module, threads)
        self._open: _native.Archive | None = open_archive(filename, io=io, verify=verify, bases=bases)
        self._resident: dict[tuple[str, tuple[int, int] | None], Resident] = {}
        self._lock = threading.Lock()

    @property
    def _archive(self) -> _native.Archive:
        if self._open is None:
            raise make(2001, "the file is closed")
        return self._open

    def __enter__(self) -> safe_open:
        return self

    def __exit__(self, *_: object) -> None:
        self._open = None
        self._resident.clear()

    def keys(self) -> list[str]:
        """The tensors' names, sorted."""
        return sorted(self._archive.names)

    def offset_keys(self) -> list[str]:
        """The tensors' names, in file order."""
        return self._archive.names

    def metadata(self) -> dict[str, str] | None:
        """The user's metadata, if there is any."""
        return self._archive.metadata or None

    def get_tensor(self, name: str) -> Any:
        """Decodes a tensor."""
        return self.get_slice(name)[...]

    def get_tensors(self) -> dict[str, Any]:
        """Decodes all tensors."""
        names = self.offset_keys()
        if self._loader is None:
            return dict(zip(names, read(self._module, self._archive, [(name, None) for name in names], self._threads)))
        return dict(zip(names, self._loader.load(self._archive, [(name, None) for name in names])))

    def get_slice(self, name: str) -> Slice:
        """A tensor to be read in parts."""
        archive = self._archive
        if name not in archive:
            raise missing(name, os.fspath(archive.path))
        return Slice(archive, name, self._module, self._threads, self._loader)

    def views(self) -> list[str]:
        """Names of the weights that quantized tensors of the file stand for, in the order of the file. None is a tensor's name."""
        return self._archive.views

    def get_view(self, name: str) -> View:
        """Weights that quantized tensors stand for, to be computed in whole, `[...]`, or in part, `[0:128]`: on the CPU, also if the result
        is to be on a device.
        """
        archive = self._archive
        if name not in archive.views:
            raise missing(name, os.fspath(archive.path), "view")
        return View(archive, name, self._module, self._threads, device_of(self._loader))

    def decode_into(self, name: str, out: Any, *, rows: slice | None = None, stream: Any = None) -> None:
        """Decodes a tensor, or rows of it, into memory of the caller: a contiguous tensor of torch or, of as many bytes, what has
        `__cuda_array_interface__` or, on the CPU, the buffer protocol.

        On a CUDA device the first call for a tensor copies it there as it is stored, decodes it, checks it and waits; it stays until the
        file is closed. Every further call only submits kernels to `stream`, torch's current one if None: it allocates nothing, waits for
        nothing, and may be captured in a graph, which the file must outlive. Decodes of one tensor must not overlap on the device.
        """
        part = self.get_slice(name)
        wanted = part.rows_of(rows)
        byte_len = part.byte_len(wanted)
        if self._loader is None:
            part.read_into(host_memory(out, byte_len), wanted)
            return
        ordinal = self._loader.ordinal
        address, handle = output(out, part.get_dtype(), byte_len), stream_handle(stream, ordinal)
        with self._lock:
            resident = self._resident.get((name, wanted))
            if resident is None:
                resident = Resident(self._archive, (name, wanted), ordinal, self._threads, address, handle)
                self._resident[name, wanted] = resident
                return
        resident.decode(address, handle)


def make_loader(device: object, module: str, threads: int) -> Loader | None:
    """What decodes on a device; None for the CPU."""
    ordinal = cuda_device(device, module)
    return None if ordinal is None else Loader(ordinal, threads)


def device_of(loader: Loader | None) -> Any:
    """torch's name of the device that a loader decodes on; None for the CPU."""
    return None if loader is None else torch_device(loader.ordinal)


def missing(name: str, file: str, kind: str = "tensor") -> TensorNotFoundError:
    """The error of a tensor that is not there."""
    return TensorNotFoundError("CMZ2001", f"there is no {kind} {name!r} in {file}", None, file, name)


def open_all(path: Path, **options: Any) -> dict[str, _native.Archive]:
    """The file that holds each tensor of a checkpoint: a file, a folder or an index of shards."""
    os.stat(path)
    tensors: dict[str, _native.Archive] = {}
    places = _native.weight_map(os.fspath(path))
    if places:
        archives = {file: open_archive(file, **options) for file in sorted(set(places.values()))}
        return {name: archives[file] for name, file in places.items()}
    for file in _native.files_of(os.fspath(path)):
        archive = open_archive(file, **options)
        for name in archive.names:
            if name in tensors:
                raise make(2001, f"the tensor {name!r} is in two files of the folder", "name one file", file, name)
            tensors[name] = archive
    return tensors


class CheckpointMapping(Mapping[str, Any]):
    """The tensors of a checkpoint (a file, a folder, or an index of shards) by name, decoded when they are asked for.

    It is what `load_state_dict(…, assign=True)` and accelerate's `weights_map` take; `slices()` is what transformers takes as
    `state_dict`. `device_for` says on which device a tensor is decoded, by its name. With `dequantize=True` the tensors of a quantized
    checkpoint give way to the weights that they stand for, so that it is what a dense model takes.
    """

    def __init__(
        self,
        path: Path,
        framework: str = "pt",
        device_for: Callable[[str], object] | None = None,
        *,
        io: str = "auto",
        verify: str = "stored",
        bases: Sequence[Path] = (),
        threads: int = 0,
        dequantize: bool = False,
    ) -> None:
        self._module, self._threads, self._device_for = _frameworks.framework(framework), threads, device_for
        self._loaders: dict[object, Loader | None] = {}
        self._tensors = open_all(path, io=io, verify=verify, bases=bases)
        #: The views in the place of tensors, by the names that the weights have in a model.
        self._views: dict[str, str] = {}
        if dequantize:
            for archive in {os.fspath(archive.path): archive for archive in self._tensors.values()}.values():
                self._dequantize(archive)

    def _dequantize(self, archive: _native.Archive) -> None:
        """Puts the views of a file in the place of the tensors that they come from."""
        views = {view: archive.view_info(view)[-1] for view in archive.views}
        for part in {part for parts in views.values() for part in parts}:
            self._tensors.pop(part, None)
        for view in views:
            name = view.removesuffix(".dequantized")
            self._tensors[name], self._views[name] = archive, view

    def __getitem__(self, name: str) -> Any:
        return self.slice(name)[...]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def slice(self, name: str) -> Slice:
        """A tensor that has not been read."""
        if name not in self._tensors:
            raise KeyError(name)
        archive, loader = self._tensors[name], self.loader(name)
        if name in self._views:
            return View(archive, self._views[name], self._module, self._threads, device_of(loader))
        return Slice(archive, name, self._module, self._threads, loader)

    @property
    def dequantized(self) -> Set[str]:
        """Names of those tensors that are computed from quantized ones."""
        return self._views.keys()

    def loader(self, name: str) -> Loader | None:
        """What decodes a tensor on its device; None if that is the CPU."""
        device = "cpu" if self._device_for is None else self._device_for(name)
        if device not in self._loaders:
            self._loaders[device] = make_loader(device, self._module, self._threads)
        return self._loaders[device]

    def slices(self) -> Slices:
        """The same tensors, not read until each is indexed."""
        return Slices(self)

    def archive(self, name: str) -> _native.Archive:
        """The file that holds a tensor."""
        return self._tensors[name]


class Slices(Mapping[str, Slice]):
    """The tensors of a checkpoint as slices."""

    def __init__(self, tensors: CheckpointMapping) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> Slice:
        return self._tensors.slice(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
