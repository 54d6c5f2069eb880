"""Checkpoints in repositories of the Hub."""

from __future__ import annotations

import os
import re

from ._files import Path

#: Weights in other formats, which a repository may hold beside `.cmz` files.
_OTHERS = ["*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.h5", "*.msgpack", "*.onnx"]


def local_folder(path: Path, revision: str | None = None) -> str:
    """A path that exists, or the folder that the repository of this name was fetched to: all but weights in other formats."""
    name = os.fspath(path)
    if os.path.exists(name) or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        # That it does not exist is for the reader to say.
        return name
    from huggingface_hub import snapshot_download

    return snapshot_download(name, revision=revision, ignore_patterns=_OTHERS)
