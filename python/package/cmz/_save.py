"""Writing files of tensors in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict

from . import _native
from ._dtypes import BITS
from ._errors import make
from ._files import Path
from ._progress import ProgressOption, callback_for


class SaveOptions(TypedDict, total=False):
    """Options of everything that writes tensors."""

    level: str
    threads: int
    overwrite: bool
    progress: ProgressOption


class Part(NamedTuple):
    """A tensor: its safetensors element type, its shape in elements, and its bytes."""

    dtype: str
    shape: Sequence[int]
    memory: memoryview


def save(
    parts: Mapping[str, Part],
    filename: Path,
    metadata: Mapping[str, str] | None,
    level: str,
    threads: int,
    overwrite: bool,
    progress: ProgressOption,
) -> int:
    """Writes the file whose source is the safetensors file of these tensors: wide elements first, so that all are aligned."""
    for word in (*parts, *(metadata or {}), *(metadata or {}).values()):
        if not isinstance(word, str):
            raise make(2001, f"{word!r} is no string", "names and metadata are strings, as in safetensors")
    order = sorted(parts, key=lambda name: (-BITS[parts[name].dtype], name))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        part, start = parts[name], end
        end += len(part.memory)
        header[name] = {"dtype": part.dtype, "shape": list(part.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with callback_for(progress) as callback:
        return _native.save(
            os.fspath(filename),
            len(text).to_bytes(8, "little") + text,
            [parts[name].memory for name in order],
            level=level,
            threads=threads,
            overwrite=overwrite,
            callback=callback,
        )
