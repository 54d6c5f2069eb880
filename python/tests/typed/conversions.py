"""A program of somebody who checks types strictly: conversions, files and errors. `conversions.py SOURCE VIEWS FOLDER` runs it."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import cmz
import cmz.numpy


class Log:
    """Phases, in order."""

    def __init__(self) -> None:
        self.phases: list[str] = []

    def __call__(self, progress: cmz.Progress) -> None:
        assert_type(progress.done, int)
        assert_type(progress.file, str | None)
        if progress.phase not in self.phases:
            self.phases.append(progress.phase)


def convert(source: Path, folder: Path) -> Path:
    log = Log()
    guess = cmz.estimate(source, level="max", progress=log)
    assert_type(guess.ratio, float)
    assert_type([tensor.stored_len for tensor in guess.tensors], list[int])
    [done] = cmz.compress(source, folder / "model.cmz", progress=log, threads=2, bases=())
    assert_type(done, cmz.Compressed)
    assert_type(done.source_sha256, str)
    [proof] = cmz.verify(done.target, progress=log.__call__)
    assert_type(proof.source_sha256, str | None)
    [back] = cmz.decompress(done.target, folder / "back.safetensors", progress=log)
    assert_type(back.sha256, str)
    assert back.sha256 == done.source_sha256 == proof.source_sha256 and log.phases
    return Path(done.target)


def look(path: Path) -> None:
    found = cmz.inspect(path)
    assert_type(found, cmz.Inspection)
    assert_type(found.metadata, dict[str, str])
    for tensor in found.tensors:
        assert_type(tensor.shape, tuple[int, ...])
        print(f"{tensor.name}: {tensor.dtype} {tensor.shape}, {tensor.stored_len} bytes for {tensor.byte_len}")


def read(path: Path) -> None:
    with cmz.safe_open(path, framework="np", io="pread", verify="full") as file:
        assert_type(file, cmz.safe_open)
        assert_type(file.metadata(), dict[str, str] | None)
        for name in file.keys():
            part = file.get_slice(name)
            assert_type(part, cmz.Slice)
            assert_type(part.get_shape(), list[int])
            # Of any framework, so of no type.
            assert_type(part[0:1, ...], Any)
            file.decode_into(name, bytearray(len(file.get_tensor(name).tobytes())), rows=slice(0, len(part)))
    arrays = cmz.numpy.load_file(path, threads=2)
    total: int = sum(array.nbytes for array in arrays.values())
    mapping: Mapping[str, Any] = cmz.CheckpointMapping(path, "np", device_for=lambda name: "cpu")
    assert total == sum(mapping[name].nbytes for name in mapping)


def write(folder: Path) -> None:
    weights: dict[str, npt.NDArray[np.float32]] = {"w": np.ones((4, 3), np.float32)}
    assert_type(cmz.numpy.save_file(weights, folder / "new.cmz", {"format": "np"}, level="max"), int)


def views(path: Path) -> None:
    with cmz.safe_open(path, "np") as file:
        for name in file.views():
            view = file.get_view(name)
            assert_type(view, cmz.View)
            assert_type((view.layout, view.parts), tuple[str, tuple[str, ...]])
            assert view[...].shape == view.shape and view[0:1].shape == (1, *view.shape[1:])


def errors(path: Path) -> None:
    try:
        with cmz.safe_open(path, "np") as file:
            file.get_tensor("no such tensor")
    except cmz.TensorNotFoundError as error:
        assert_type(error.tensor, str | None)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    try:
        cmz.verify(path)
    except (cmz.CorruptError, cmz.UnsupportedError) as error:
        place: tuple[str | None, int | None, int | None] = error.tensor, error.block, error.offset
        rest: list[cmz.CmzError] = error.others
        assert error.code.startswith("CMZ3") and error.help is not None, (place, rest)
    else:
        raise SystemExit("the damage was not noticed")


def mistakes(path: Path) -> None:
    """Never called: what must not pass. Strict checking refuses a comment that is not needed."""
    cmz.compres(path)  # type: ignore[attr-defined]
    cmz.compress(path, levle="max")  # type: ignore[call-arg]
    cmz.estimate(path, progress=lambda: None)  # type: ignore[arg-type, misc]
    cmz.numpy.load_file(path, verfy="none")  # type: ignore[call-arg]
    cmz.numpy.save_file({"a": [1.0]}, path)  # type: ignore[dict-item]
    cmz.safe_open(path, bases=path)  # type: ignore[arg-type]
    cmz.inspect(path).tensors[0].name = "other"  # type: ignore[misc]


def main(source: str, quantized: str, folder: str) -> None:
    path = convert(Path(source), Path(folder))
    look(path)
    read(path)
    write(Path(folder))
    views(Path(quantized))
    errors(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
