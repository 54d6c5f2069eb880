"""Decoding on a CUDA device, real or emulated: the same bits as on the CPU."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import devices
import pytest
from conftest import GOLDEN, REAL

import cmz

torch = pytest.importorskip("torch", reason="torch is not installed: no decoding on a device is tested")

import cmz.torch  # noqa: E402


def same(a, b):
    a, b = a.cpu(), b.cpu()
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(-1).view(torch.uint8), b.view(-1).view(torch.uint8))


@pytest.fixture
def tensors():
    torch.manual_seed(1)
    return {
        "big": (torch.randn(1500, 512) * 0.02).bfloat16(),
        "wide": torch.randn(40, 1000) * 0.02,
        "half": (torch.randn(33, 77) * 0.02).half(),
        "f8": torch.randn(16, 80).to(torch.float8_e4m3fn),
        "ids": torch.arange(100),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "none": torch.empty(0, 3),
        "mask": torch.tensor([True, False]),
    }


@pytest.fixture(params=["fast", "max"])
def file(tmp_path, tensors, request):
    cmz.torch.save_file(tensors, tmp_path / "model.cmz", level=request.param)
    return tmp_path / "model.cmz"


@pytest.mark.parametrize("name", ["cuda", "cuda:0", 0, torch.device("cuda"), "auto"])
def test_a_file(device, file, tensors, name):
    loaded = cmz.torch.load_file(file, device=name)
    assert list(loaded) == cmz.safe_open(file).offset_keys()
    assert all(same(loaded[name], tensors[name]) for name in tensors)
    if isinstance(device, devices.Real):
        assert all(tensor.is_cuda for tensor in loaded.values())


@pytest.mark.parametrize("verify", ["stored", "full", "none"])
def test_real_weights_tensor_by_tensor(device, tmp_path, verify):
    [done] = cmz.compress(REAL, tmp_path / "layer.cmz")
    expected = cmz.torch.load_file(done.target)
    with cmz.safe_open(done.target, device="cuda", verify=verify) as f:
        assert all(same(f.get_tensor(name), expected[name]) for name in f.keys())


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("good-*.cmz")), ids=lambda path: path.stem)
def test_golden_files(device, path):
    bases = [GOLDEN / "good-base.cmz"] if path.stem == "good-against-base" else []
    expected = cmz.torch.load_file(path, bases=bases)
    loaded = cmz.torch.load_file(path, device="cuda", bases=bases)
    assert loaded.keys() == expected.keys() and all(same(loaded[name], expected[name]) for name in loaded)


def test_rows_of_ranks(device, file, tensors):
    with cmz.safe_open(file, device="cuda") as f:
        rows = f.get_slice("big")
        ranks = [rows[rank * 375 : (rank + 1) * 375] for rank in range(4)]
        assert same(torch.cat([rank.cpu() for rank in ranks]), tensors["big"])
        assert same(rows[7], tensors["big"][7]) and same(rows[::3, 5:9].contiguous(), tensors["big"][::3, 5:9].contiguous())
        assert rows[9:9].shape == (0, 512)


def test_tensors_of_a_folder(device, tmp_path, tensors, monkeypatch):
    monkeypatch.setattr(cmz.torch, "_GROUP_LEN", 100_000)
    names = list(tensors)
    cmz.torch.save_file({name: tensors[name] for name in names[::2]}, tmp_path / "a.cmz")
    cmz.torch.save_file({name: tensors[name] for name in names[1::2]}, tmp_path / "b.cmz")
    loaded = dict(cmz.torch.iter_tensors(tmp_path, device="cuda"))
    assert loaded.keys() == tensors.keys() and all(same(loaded[name], tensors[name]) for name in tensors)
    mapping = cmz.CheckpointMapping(tmp_path, device_for=lambda name: "cuda" if name == "big" else "cpu")
    assert all(same(mapping[name], tensors[name]) for name in tensors)


def test_several_threads_at_once(device, file, tensors):
    with cmz.safe_open(file, device="cuda") as f, ThreadPoolExecutor(4) as pool:
        names = list(tensors) * 3
        assert all(same(t, tensors[name]) for name, t in zip(names, pool.map(f.get_tensor, names)))


def test_decoding_into_memory_of_the_caller(device, file, tensors):
    with cmz.safe_open(file, device="cuda") as f:
        for name in tensors:
            out = f.get_tensor(name)
            for _ in range(2):
                out.zero_()
                f.decode_into(name, out)
                device.synchronize()
                assert same(out, tensors[name])
        part = cmz._gpu.empty((200, 512), torch.bfloat16, 0)
        f.decode_into("big", part, rows=slice(100, 300))
        assert same(part, tensors["big"][100:300])
        raw = cmz._gpu.empty((33 * 77 * 2,), torch.uint8, 0)
        f.decode_into("half", raw)
        device.synchronize()
        assert same(raw.view(torch.float16).view(33, 77), tensors["half"])


def test_a_decode_is_captured_in_a_graph(device, file, tensors):
    """Nothing is allocated, and nothing waits: a capture refuses both."""
    with cmz.safe_open(file, device="cuda") as f:
        out = {name: f.get_tensor(name) for name in ("big", "wide", "half", "f8")}

        def work():
            for name, tensor in out.items():
                f.decode_into(name, tensor)

        work()
        replay = device.capture(work)
        for value in (0, 1):
            for tensor in out.values():
                tensor.view(torch.uint8).fill_(value)
            device.synchronize()
            replay()
            device.synchronize()
            assert all(same(tensor, tensors[name]) for name, tensor in out.items())


def test_a_decode_waits_for_nothing(emulator, file, tensors):
    """The emulator runs work as late as it may."""
    with cmz.safe_open(file, device="cuda") as f:
        out = f.get_tensor("big")
        f.decode_into("big", out)
        out.zero_()
        emulator.driver.emu_fail_allocation(devices.c_uint64(1))
        try:
            f.decode_into("big", out)
        finally:
            emulator.driver.emu_fail_allocation(devices.c_uint64(0))
        assert not out.any()
        emulator.synchronize()
        assert same(out, tensors["big"])


class Stream:
    def __init__(self, handle):
        self.handle = handle

    def __cuda_stream__(self):
        return 0, self.handle


def test_arrays_and_streams_of_others(device, file, tensors):
    memory = cmz._gpu.empty((40, 1000), torch.float32, 0)
    address = memory.data_ptr()
    with cmz.safe_open(file, device="cuda") as f:
        for stream in (None, 0, Stream(0)):
            for array in (
                devices.Array(address, (40, 1000), "<f4"),
                devices.Array(address, (160000,), "|u1"),
                devices.Array(address, (1, 40, 1000), "<f4", (7, 4000, 4)),
            ):
                memory.zero_()
                f.decode_into("wide", array, stream=stream)
                device.synchronize()
                assert same(memory, tensors["wide"])


def test_wrong_outputs(device, file):
    out = cmz._gpu.empty((40, 1000), torch.float32, 0)
    address = out.data_ptr()
    wrong = [
        out[:39],
        out.view(torch.int32),
        out.T,
        devices.Array(address, (40, 999), "<f4"),
        devices.Array(address, (40, 1000), "<f4", (4, 160)),
        devices.Array(address, (40, 1000), "<f4", read_only=True),
        devices.Array(0, (40, 1000), "<f4"),
        torch.zeros(40, 1000),
        bytearray(160000),
    ]
    with cmz.safe_open(file, device="cuda") as f:
        for prepared in (False, True):
            if prepared:
                f.decode_into("wide", out)
            for other in wrong:
                with pytest.raises(cmz.InvalidArgumentError):
                    f.decode_into("wide", other)
        with pytest.raises(cmz.InvalidArgumentError, match="no tensor"):
            f.decode_into("no", out)
        for rows in (slice(0, 40, 2), slice(0, 39)):
            with pytest.raises(cmz.InvalidArgumentError):
                f.decode_into("wide", out, rows=rows)


def test_the_first_decode_is_not_captured(emulator, file):
    out = emulator.empty((40, 1000), torch.float32, 0)
    stream = emulator.capturing_stream()
    with cmz.safe_open(file, device="cuda") as f:
        with pytest.raises(cmz.InvalidArgumentError, match="captured"):
            f.decode_into("wide", out, stream=stream)
    emulator.end_capture(stream)


def test_damage_is_found(device, file):
    data = bytearray(file.read_bytes())
    *_, offset = cmz._native.Archive(str(file)).info("big")
    data[offset + 5000] ^= 1
    file.write_bytes(data)
    with cmz.safe_open(file, device="cuda") as f:
        assert f.get_tensor("half").shape == (33, 77)
        out = cmz._gpu.empty((1500, 512), torch.bfloat16, 0)
        for read in (lambda: f.get_tensor("big"), lambda: f.decode_into("big", out)):
            with pytest.raises(cmz.CorruptError) as caught:
                read()
            assert (caught.value.code, caught.value.tensor, caught.value.block) == ("CMZ3001", "big", 0)


def test_wrong_devices(device, file):
    for name, code in {"mps": "CMZ1004", "cuda:99": "CMZ1004", "cuda:x": "CMZ2001"}.items():
        with pytest.raises(cmz.CmzError) as caught:
            cmz.torch.load_file(file, device=name)
        assert caught.value.code == code and caught.value.help
    with pytest.raises(cmz.InvalidArgumentError, match="numpy"):
        cmz.safe_open(file, "np", device="cuda")
    assert cmz.safe_open(file, "np", device="auto").get_tensor("wide").shape == (40, 1000)


def test_without_a_driver(tmp_path):
    """A clear error, or the CPU when any device will do."""
    cmz.torch.save_file({"a": torch.ones(3)}, tmp_path / "model.cmz")
    script = """
import sys, cmz.torch
print(cmz.torch.load_file(sys.argv[1], device="auto")["a"].device)
try:
    cmz.torch.load_file(sys.argv[1], device="cuda")
except cmz.FailedError as error:
    print(error.code, error.help)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "model.cmz"],
        capture_output=True,
        text=True,
        check=True,
        env={"CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.stdout.startswith("cpu\nCMZ1004 ") and 'device="auto"' in done.stdout
