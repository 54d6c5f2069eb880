"""`.cmz` files of jax arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import numpy

from . import numpy as _numpy
from ._files import OpenOptions, Path, safe_open
from ._save import SaveOptions


def load_file(filename: Path, **options: Unpack[OpenOptions]) -> dict[str, Any]:
    """All tensors of a file, on jax's default device. Options are those of `cmz.safe_open`."""
    with safe_open(filename, "jax", **options) as file:
        return file.get_tensors()


def save_file(tensors: Mapping[str, Any], filename: Path, metadata: Mapping[str, str] | None = None, **options: Unpack[SaveOptions]) -> int:
    """Writes arrays to a file. Options are those of `cmz.numpy.save_file`."""
    return _numpy.save_file({name: numpy.asarray(array) for name, array in tensors.items()}, filename, metadata, **options)
