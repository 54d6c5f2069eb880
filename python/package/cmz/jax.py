"""`.cmz` files of jax arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy

from . import numpy as _numpy
from ._files import Path, safe_open


def load_file(filename: Path, **options: Any) -> dict[str, Any]:
    """All tensors of a file, on jax's default device. Options are those of `cmz.safe_open`."""
    with safe_open(filename, "jax", **options) as file:
        return file.get_tensors()


def save_file(tensors: Mapping[str, Any], filename: Path, metadata: Mapping[str, str] | None = None, **options: Any) -> int:
    """Writes arrays to a file. Options are those of `cmz.numpy.save_file`."""
    return _numpy.save_file({name: numpy.asarray(array) for name, array in tensors.items()}, filename, metadata, **options)
