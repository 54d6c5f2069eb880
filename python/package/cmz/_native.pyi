"""The native module. Use the package's functions instead."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ._errors import CmzError

__version__: str

# What has the buffer protocol.
Buffer: TypeAlias = Any

class Archive:
    def __init__(self, path: str | Path, *, io: str = "auto", verify: str = "stored", bases: Sequence[Archive] = ()) -> None: ...
    @staticmethod
    def from_bytes(data: bytes) -> Archive: ...
    @property
    def path(self) -> Path: ...
    @property
    def names(self) -> list[str]: ...
    @property
    def metadata(self) -> dict[str, str]: ...
    @property
    def file_len(self) -> int: ...
    @property
    def root(self) -> str: ...
    @property
    def generator(self) -> str: ...
    @property
    def source(self) -> tuple[str, int, str] | None: ...
    def __contains__(self, name: str) -> bool: ...
    def info(self, name: str) -> tuple[str, list[int], int, int, int, str, int]: ...
    def read_into(self, name: str, memory: Buffer, threads: int = 0) -> None: ...
    def read_range_into(self, name: str, start: int, memory: Buffer) -> None: ...

class Gpu:
    def __init__(self, ordinal: int) -> None: ...
    @property
    def name(self) -> str: ...
    def load(
        self,
        archive: Archive,
        wanted: Sequence[tuple[str, tuple[int, int] | None]],
        addresses: Sequence[int],
        stream: int,
        threads: int = 0,
    ) -> None: ...
    def plan(self, archive: Archive, wanted: tuple[str, tuple[int, int] | None], threads: int = 0) -> Plan: ...
    def is_capturing(self, stream: int) -> bool: ...

class Plan:
    @property
    def output_len(self) -> int: ...
    @property
    def device_len(self) -> int: ...
    def decode(self, address: int, stream: int) -> None: ...
    def check(self, stream: int) -> None: ...

def files_of(path: str) -> list[Path]: ...
def weight_map(path: str) -> dict[str, Path]: ...
def compress(
    source: str,
    target: str | None,
    *,
    level: str,
    codec: str | None,
    threads: int,
    overwrite: bool,
    verify: bool,
    copy_others: bool,
    keep_partial: bool,
    bases: Sequence[Archive],
    callback: Callable[..., object] | None,
) -> list[tuple[Path, Path, int, int, str, int, bool]]: ...
def decompress(
    source: str,
    target: str | None,
    *,
    threads: int,
    overwrite: bool,
    copy_others: bool,
    bases: Sequence[Archive],
    callback: Callable[..., object] | None,
) -> list[tuple[Path, Path, int, str]]: ...
def verify(
    path: str, *, decode: bool, threads: int, bases: Sequence[Archive], callback: Callable[..., object] | None
) -> list[tuple[Path, int, int, str | None, list[CmzError]]]: ...
def estimate(path: str, *, level: str, threads: int, callback: Callable[..., object] | None) -> list[tuple[str, int, int, str]]: ...
def save(
    target: str,
    header: bytes,
    parts: Sequence[memoryview],
    *,
    level: str,
    threads: int,
    overwrite: bool,
    callback: Callable[..., object] | None,
) -> int: ...
