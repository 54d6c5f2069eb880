"""Conversions, their progress, and what is left when they are interrupted."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import REAL, safetensors_file

import cmz


def test_compress_verify_inspect_decompress(source, tmp_path):
    [done] = cmz.compress(source, tmp_path / "model.cmz")
    assert done.target == str(tmp_path / "model.cmz") and done.source_len == source.stat().st_size
    assert done.len == (tmp_path / "model.cmz").stat().st_size and done.ratio < 0.9
    [verified] = cmz.verify(done.target)
    assert verified.source_sha256 == done.source_sha256 and verified.tensors == 6
    [quick] = cmz.verify(done.target, decode=False)
    assert quick.source_sha256 is None
    found = cmz.inspect(done.target)
    assert found.len == done.len and found.metadata == {"format": "np"}
    big = {tensor.name: tensor for tensor in found.tensors}["big"]
    assert (big.dtype, big.shape, big.byte_len, big.encoding) == ("F32", (700, 1024), 700 * 1024 * 4, "float_planes")
    [back] = cmz.decompress(done.target, tmp_path / "back.safetensors")
    assert back.sha256 == done.source_sha256
    assert (tmp_path / "back.safetensors").read_bytes() == source.read_bytes()


def test_the_estimate_is_close(tmp_path):
    for level in ("fast", "max"):
        [done] = cmz.compress(REAL, tmp_path / f"{level}.cmz", level=level)
        assert cmz.estimate(REAL, level=level).ratio == pytest.approx(done.ratio, abs=0.01)


def test_against_a_base(source, tmp_path, weights):
    weights["big"][5] += 1e-3
    other = safetensors_file(tmp_path / "tuned.safetensors", weights)
    [base] = cmz.compress(source, tmp_path / "base.cmz")
    [tuned] = cmz.compress(other, tmp_path / "tuned.cmz", bases=[base.target])
    assert tuned.len < base.len / 10
    with pytest.raises(cmz.InvalidArgumentError) as caught:
        cmz.verify(tuned.target)
    assert caught.value.code == "CMZ2002"
    cmz.verify(tuned.target, bases=[base.target])
    with cmz.safe_open(tuned.target, "np", bases=[base.target]) as file:
        assert file.get_tensor("big").tobytes() == weights["big"].tobytes()


def test_progress_is_told(source, tmp_path):
    seen = []
    cmz.compress(source, tmp_path / "model.cmz", progress=seen.append)
    last = seen[-1]
    assert last.phase == "verifying" and last.done == last.total == source.stat().st_size and last.file == str(source)


def test_a_bar_is_shown(source, tmp_path, capsys):
    cmz.compress(source, tmp_path / "model.cmz", progress=True)
    shown = capsys.readouterr()
    assert "verifying" in shown.err and shown.out == ""


def test_an_exception_of_the_callback_stops(source, tmp_path):
    def stop(progress):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        cmz.compress(source, tmp_path / "model.cmz", progress=stop)
    with pytest.raises(RuntimeError, match="enough"):
        cmz.decompress(cmz.compress(source, tmp_path / "whole.cmz")[0].target, tmp_path / "back.safetensors", progress=stop)


# A shell's background jobs ignore Ctrl-C, and so do their children unless they say otherwise.
SCRIPT = """
import signal, sys, cmz
signal.signal(signal.SIGINT, signal.default_int_handler)
print("ready", flush=True)
try:
    working = lambda progress: progress.done and print("working", flush=True)
    getattr(cmz, sys.argv[1])(*sys.argv[2:4], overwrite=True, progress=working, **eval(sys.argv[4]))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A file that takes a second or so."""
    random = np.random.default_rng(2)
    arrays = {f"layer.{i}": random.normal(0, 0.02, (1024, 2048)).astype(np.float32) for i in range(16)}
    return safetensors_file(tmp_path_factory.mktemp("large") / "large.safetensors", arrays)


def interrupt(verb, source, target, **options):
    """Runs a conversion and presses Ctrl-C when it has begun. Returns what it printed, and how long it took to end."""
    command = [sys.executable, "-c", SCRIPT, verb, str(source), str(target), repr(options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n" and process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    output, _ = process.communicate(timeout=60)
    return output, time.monotonic() - start


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_leaves_nothing_half_written(large, tmp_path):
    options = {"level": "max", "threads": 1}
    output, took = interrupt("compress", large, tmp_path / "model.cmz", **options)
    assert output.endswith("interrupted\n") and took < 5
    assert not list(tmp_path.iterdir())
    # Or it is kept, and the next run goes on with it.
    output, _ = interrupt("compress", large, tmp_path / "model.cmz", keep_partial=True, **options)
    assert output.endswith("interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["model.cmz.partial"]
    [done] = cmz.compress(large, tmp_path / "model.cmz", **options)
    cmz.verify(done.target)
    output, _ = interrupt("decompress", done.target, tmp_path / "back.safetensors", threads=1)
    assert output.endswith("interrupted\n")
    # It may have been done when the signal came; then it is whole.
    assert {path.name for path in tmp_path.iterdir()} <= {"model.cmz", "back.safetensors"}
    assert all(path.stat().st_size == large.stat().st_size for path in tmp_path.glob("back*"))


def ticks_during(work):
    """How often the main thread wakes up while another one works."""
    thread = threading.Thread(target=work)
    thread.start()
    ticks = 0
    while thread.is_alive():
        time.sleep(0.001)
        ticks += 1
    thread.join()
    return ticks


def test_other_threads_run_meanwhile(large, tmp_path):
    """Each is one call of the native module, which takes many milliseconds."""
    assert ticks_during(lambda: cmz.compress(large, tmp_path / "model.cmz", threads=1)) > 20
    assert ticks_during(lambda: cmz.verify(tmp_path / "model.cmz", threads=1)) > 20
    big = safetensors_file(tmp_path / "big.safetensors", {"big": np.random.default_rng(3).normal(size=(16, 1 << 20)).astype(np.float32)})
    [done] = cmz.compress(big, tmp_path / "big.cmz")
    archive = cmz._native.Archive(done.target)
    memory = bytearray(64 << 20)
    assert ticks_during(lambda: archive.read_into([("big", 0, memory)], 1)) > 3


def test_folders(source, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    source.rename(folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    cmz.compress(folder, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.cmz", "config.json", "model.cmz.index.json"}
    assert len(cmz.CheckpointMapping(tmp_path / "out", "np")) == 6
    assert cmz.inspect(tmp_path / "out").files == (str(tmp_path / "out/model.cmz"),)
