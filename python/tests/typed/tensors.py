"""Another such program: tensors of torch. `tensors.py SOURCE FOLDER` runs it."""

import sys
from pathlib import Path
from typing import assert_type

import torch

import cmz
import cmz.torch


def main(source: str, folder: str) -> None:
    [done] = cmz.compress(source, Path(folder) / "model.cmz", progress=None)
    tensors = cmz.torch.load_file(done.target, device="cpu", io="mmap")
    assert_type(tensors, dict[str, torch.Tensor])
    for name, tensor in cmz.torch.iter_tensors(done.target, dequantize=True, verify="none"):
        assert_type((name, tensor), tuple[str, torch.Tensor])
        assert torch.equal(tensor, tensors[name])
    assert_type(cmz.torch.save_file(tensors, Path(folder) / "again.cmz", overwrite=False), int)


def mistakes(path: Path) -> None:
    """Never called: what must not pass."""
    cmz.torch.load_file(path, dequantize=True)  # type: ignore[call-arg]
    cmz.torch.iter_tensors(path, treads=2)  # type: ignore[call-arg]


if __name__ == "__main__":
    main(*sys.argv[1:])
