"""Exceptions. Ask for their class or `code`, never for their text."""

from __future__ import annotations

import os
from typing import Any


class CmzError(Exception):
    """What went wrong: a stable `code` ("CMZ3001"), where, and what to do next (`help`)."""

    def __init__(
        self,
        code: str,
        message: str,
        help: str | None = None,
        file: str | None = None,
        tensor: str | None = None,
        block: int | None = None,
        offset: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.help = help
        self.file = file
        #: The tensor's name, as stored: not escaped.
        self.tensor = tensor
        #: Number of the block in the tensor, from 0.
        self.block = block
        #: Offset in the file, in bytes.
        self.offset = offset
        #: What else is wrong, where several things are.
        self.others: list[CmzError] = []

    def __str__(self) -> str:
        return f"[{self.code}] {self.message}" + (f" (help: {self.help})" if self.help else "")

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self.code, self.message, self.help, self.file, self.tensor, self.block, self.offset)
        return type(self), parts, {"others": self.others}


class FailedError(CmzError):
    """CMZ1xxx: the operation failed; the environment must be mended."""


class InvalidArgumentError(CmzError, ValueError):
    """CMZ2xxx: the request cannot be met."""


class CorruptError(CmzError):
    """CMZ3xxx: the file is damaged, or is no such file: fetch it again."""


class UnsupportedError(CmzError):
    """CMZ4xxx: newer software is needed."""


class RefusedError(CmzError):
    """CMZ5xxx: a rule or a limit refuses the operation."""


class TensorNotFoundError(InvalidArgumentError, KeyError):
    """The file has no tensor of this name."""


_CLASSES = {1: FailedError, 2: InvalidArgumentError, 3: CorruptError, 4: UnsupportedError, 5: RefusedError}


def make(
    number: int,
    message: str,
    help: str | None = None,
    file: str | os.PathLike[str] | None = None,
    tensor: str | None = None,
    block: int | None = None,
    offset: int | None = None,
) -> CmzError:
    """The exception for a code's number."""
    kind = _CLASSES[number // 1000]
    return kind(f"CMZ{number}", message, help, None if file is None else os.fspath(file), tensor, block, offset)
