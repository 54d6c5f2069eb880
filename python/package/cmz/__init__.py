"""Compressed checkpoints for neural networks: a third smaller, bit for bit the same.

`safe_open`, `CheckpointMapping` and the modules `cmz.torch`, `cmz.numpy` and `cmz.jax` read and write `.cmz` files; `cmz.transformers`
loads models; `compress`, `decompress`, `verify`, `inspect` and `estimate` are what the command `cmz` does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._convert import (
    Compressed,
    Decompressed,
    Estimate,
    Inspection,
    Progress,
    TensorEstimate,
    TensorInfo,
    Verified,
    compress,
    decompress,
    estimate,
    inspect,
    verify,
)
from ._errors import (
    CmzError,
    CorruptError,
    FailedError,
    InvalidArgumentError,
    RefusedError,
    TensorNotFoundError,
    UnsupportedError,
)
from ._files import CheckpointMapping, Slice, View, safe_open
from ._native import __version__
from ._when_imported import import_with

__all__ = [
    "CheckpointMapping",
    "CmzError",
    "Compressed",
    "CorruptError",
    "Decompressed",
    "Estimate",
    "FailedError",
    "Inspection",
    "InvalidArgumentError",
    "Progress",
    "RefusedError",
    "Slice",
    "TensorEstimate",
    "TensorInfo",
    "TensorNotFoundError",
    "UnsupportedError",
    "Verified",
    "View",
    "__version__",
    "compress",
    "decompress",
    "estimate",
    "inspect",
    "safe_open",
    "verify",
]

# Envelopes are loaded by what is registered with transformers.
import_with("transformers.quantizers", f"{__name__}._envelope")

_MODULES = ("jax", "numpy", "torch", "transformers")


# Not for type checkers, to which every name would be there.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """The modules for frameworks, imported when they are first asked for."""
        if name in _MODULES:
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
