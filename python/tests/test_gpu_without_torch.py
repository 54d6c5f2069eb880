"""What decodes on a CUDA device, without torch, in memory of the emulator."""

import ctypes

import devices
import numpy as np
import pytest
from conftest import GOLDEN

import cmz
import cmz.numpy
from cmz import _gpu, _native


@pytest.fixture(scope="module")
def emulator():
    path = devices.emulator_path()
    if path is None:
        pytest.skip("the emulator is not built (cargo build -p cmz-gpu-emulator)")
    emulator = devices.Emulator(path)
    if emulator.hidden():
        pytest.skip("there is a GPU, whose driver is found first")
    return emulator


@pytest.fixture
def archive(tmp_path, weights):
    cmz.numpy.save_file(weights, tmp_path / "model.cmz")
    return _native.Archive(str(tmp_path / "model.cmz"))


def address(memory):
    return ctypes.addressof(memory)


def test_a_load(emulator, archive, weights):
    memories = [emulator.allocate(array.nbytes) for array in weights.values()]
    _gpu.gpu(0).load(archive, [(name, None) for name in weights], [address(memory) for memory in memories], 0)
    assert [bytes(memory) for memory in memories] == [array.tobytes() for array in weights.values()]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("good-*.cmz")), ids=lambda path: path.stem)
def test_golden_files(emulator, path):
    bases = [_native.Archive(str(GOLDEN / "good-base.cmz"))] if path.stem == "good-against-base" else []
    archive = _native.Archive(str(path), bases=bases, verify="full")
    for name in archive.names:
        expected = bytearray(archive.info(name)[2])
        archive.read_into([(name, 0, expected)])
        memory = emulator.allocate(len(expected))
        _gpu.Resident(archive, (name, None), 0, 1, address(memory), 0)
        assert bytes(memory) == bytes(expected), name


def test_a_captured_decode_of_rows(emulator, archive, weights):
    memory = emulator.allocate(300 * 4096)
    out = _gpu.output(devices.Array(address(memory), (300, 1024), "<f4"), "F32", 300 * 4096)
    resident = _gpu.Resident(archive, ("big", (100, 400)), 0, 0, out, 0)
    assert 0 < resident.device_len < 700 * 4096
    replay = emulator.capture(lambda: resident.decode(out, emulator.stream.value))
    ctypes.memset(out, 0, len(memory))
    emulator.synchronize()
    assert not any(memory), "a capture runs nothing"
    replay()
    emulator.synchronize()
    assert np.array_equal(np.frombuffer(memory, np.float32).reshape(300, 1024), weights["big"][100:400])


def test_memory_of_the_host_is_refused(emulator, archive):
    host = bytearray(700 * 4096)
    outside = ctypes.addressof(ctypes.c_ubyte.from_buffer(host))
    with pytest.raises(cmz.InvalidArgumentError, match="not that of memory"):
        _gpu.gpu(0).load(archive, [("big", None)], [outside], 0)
    with pytest.raises(cmz.InvalidArgumentError, match="not that of memory"):
        _gpu.Resident(archive, ("big", None), 0, 1, outside, 0)
    with pytest.raises(cmz.InvalidArgumentError):
        _gpu.gpu(0).load(archive, [("big", (5, 701))], [outside], 0)
    assert not any(host)
