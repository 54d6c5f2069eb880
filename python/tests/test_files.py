"""Reading and writing files with numpy."""

import hashlib
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import GOLDEN

import cmz
import cmz.numpy


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.fixture
def file(tmp_path, weights):
    path = tmp_path / "model.cmz"
    assert cmz.numpy.save_file(weights, path, {"license": "MIT"}) == path.stat().st_size
    return path


def test_there_and_back(file, weights):
    loaded = cmz.numpy.load_file(file)
    assert loaded.keys() == weights.keys()
    assert all(same(loaded[name], weights[name]) for name in weights)


def test_what_is_saved_is_a_safetensors_file(file, tmp_path, weights):
    [done] = cmz.decompress(file, tmp_path / "back.safetensors")
    safetensors = pytest.importorskip("safetensors.numpy")
    loaded = safetensors.load_file(done.target)
    assert all(same(loaded[name], weights[name]) for name in weights)


def test_safe_open(file, weights):
    with cmz.safe_open(file, "np") as f:
        assert f.keys() == sorted(weights)
        assert set(f.offset_keys()) == set(weights) and f.offset_keys() != f.keys()
        assert f.metadata() == {"license": "MIT"}
        big = f.get_tensor("big")
        assert same(f.get_tensors()["half"], weights["half"])
    # Tensors own their memory.
    big[0, 0] = 5
    assert cmz.numpy.load_file(file)["big"][0, 0] != 5
    with pytest.raises(cmz.InvalidArgumentError, match="closed"):
        f.get_tensor("big")


@pytest.mark.parametrize(
    "index",
    [
        ...,
        slice(None),
        slice(3, 400),
        slice(-5, None),
        slice(10, 3),
        slice(0, 700, 13),
        5,
        -1,
        (slice(2, 9), 3),
        (7, slice(1, 4)),
        np.int64(650),
        (np.int64(-3), 2),
        np.array([3, 650]),
        np.bool_(True),
        (slice(None), slice(5, 6)),
        (slice(600, 650, 7), slice(None, None, 100)),
        (..., 0),
        (None, 3),
    ],
)
def test_slices_are_those_of_arrays(file, weights, index):
    with cmz.safe_open(file, "np") as f:
        part = f.get_slice("big")
        assert part.get_shape() == [700, 1024] and part.get_dtype() == "F32" and part.dtype == np.float32 and len(part) == 700
        assert same(np.asarray(part[index]), weights["big"][index])


def test_slices_of_small_and_empty_tensors(file, weights):
    with cmz.safe_open(file, "np") as f:
        assert f.get_slice("flag")[()] == weights["flag"]
        assert f.get_slice("none")[1:3].shape == (2, 0)
        with pytest.raises(IndexError):
            f.get_slice("ids")[3]


def test_a_slice_decodes_only_its_rows(file):
    """Damage in the last block is not seen by who reads the first rows."""
    data = bytearray(file.read_bytes())
    [big] = [tensor for tensor in cmz.inspect(file).tensors if tensor.name == "big"]
    assert big.blocks == 3
    *_, offset = cmz._native.Archive(str(file)).info("big")
    data[offset + big.stored_len - 100] ^= 1
    file.write_bytes(data)
    with cmz.safe_open(file, "np") as f:
        assert f.get_slice("big")[:5].shape == (5, 1024)
        with pytest.raises(cmz.CorruptError) as caught:
            f.get_tensor("big")
    error = caught.value
    assert (error.code, error.tensor, error.block) == ("CMZ3001", "big", 2)
    assert error.offset % 64 == 0 and error.help and error.file == str(file)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error) and again.offset == error.offset
    with pytest.raises(cmz.CorruptError) as caught:
        cmz.verify(file)
    assert (caught.value.code, caught.value.tensor, caught.value.block) == ("CMZ3001", "big", 2)


def test_several_threads_at_once(file, weights):
    with cmz.safe_open(file, "np", threads=2) as f, ThreadPoolExecutor(8) as pool:
        names = list(weights) * 20
        assert all(same(array, weights[name]) for name, array in zip(names, pool.map(f.get_tensor, names)))


@pytest.mark.parametrize("io", ["auto", "mmap", "pread", "memory"])
@pytest.mark.parametrize("verify", ["stored", "full", "none"])
def test_ways_to_read(file, weights, io, verify):
    assert same(cmz.numpy.load_file(file, io=io, verify=verify)["big"], weights["big"])


def test_every_good_golden_file():
    digests = dict(line.split()[::-1] for line in (GOLDEN / "tensors.sha256").read_text().splitlines())
    for name, expected in digests.items():
        # One of them is stored against another one.
        bases = [cmz._native.Archive(str(GOLDEN / "good-base.cmz"))] if name == "good-against-base" else []
        archive = cmz._native.Archive(str(GOLDEN / f"{name}.cmz"), bases=bases)
        digest = hashlib.sha256()
        for tensor in archive.names:
            memory = bytearray(archive.info(tensor)[2])
            archive.read_into([(tensor, 0, memory)])
            digest.update(memory)
        assert digest.hexdigest() == expected, name


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("bad-magic", cmz.CorruptError, "CMZ3009"),
        ("bad-cut-half", cmz.CorruptError, "CMZ3003"),
        ("bad-manifest-bomb", cmz.RefusedError, "CMZ5003"),
        ("unsupported-version-major", cmz.UnsupportedError, "CMZ4001"),
    ],
)
def test_errors_have_codes(name, kind, code):
    with pytest.raises(kind) as caught:
        cmz.safe_open(GOLDEN / f"{name}.cmz", "np")
    assert caught.value.code == code and str(caught.value).startswith(f"[{code}] ")


def test_wrong_requests(file, tmp_path):
    with pytest.raises(FileNotFoundError):
        cmz.safe_open(tmp_path / "no.cmz", "np")
    with cmz.safe_open(file, "np") as f, pytest.raises(KeyError) as caught:
        f.get_tensor("no")
    assert caught.value.tensor == "no" and isinstance(caught.value, cmz.CmzError)
    for options in ({"framework": "tensor"}, {"io": "x"}, {"verify": "x"}, {"device": "cuda:0"}):
        with pytest.raises(cmz.InvalidArgumentError):
            cmz.safe_open(file, **{"framework": "np"} | options)
    assert cmz.safe_open(file, "np", device="auto").keys()


def test_what_cannot_be_saved_says_so(tmp_path):
    ones = np.ones(3)
    for tensors, metadata in (({3: ones}, None), ({"x": ones}, {"a": 1}), ({"x": ones}, {1: "a"}), ({"x": [1, 2]}, None)):
        with pytest.raises(cmz.InvalidArgumentError):
            cmz.numpy.save_file(tensors, tmp_path / "new.cmz", metadata)
    with pytest.raises(cmz.FailedError) as caught:
        cmz.safe_open(tmp_path, "np")
    assert "CheckpointMapping" in caught.value.help and not list(tmp_path.iterdir())


def test_types_that_numpy_lacks(tmp_path):
    pytest.importorskip("ml_dtypes")
    for kind in ("bf16", "f8-e4m3", "f8-e5m2", "f8-e8m0", "f8-e4m3fnuz", "f8-e5m2fnuz"):
        path = GOLDEN / f"good-dtype-{kind}.cmz"
        array = cmz.numpy.load_file(path)["t"]
        assert array.shape == (10, 20) and array.dtype.kind in "Vf"
        cmz.numpy.save_file({"t": array}, tmp_path / "again.cmz")
        assert same(cmz.numpy.load_file(tmp_path / "again.cmz")["t"], array)


def test_elements_of_less_than_a_byte_are_bytes():
    assert cmz.numpy.load_file(GOLDEN / "good-dtype-f4.cmz")["t"].shape == (10, 10)
    assert cmz.numpy.load_file(GOLDEN / "good-dtype-f6-e2m3.cmz")["t"].shape == (10, 15)
    assert cmz.numpy.load_file(GOLDEN / "good-dtype-unknown.cmz")["new"].shape == (9,)
    with cmz.safe_open(GOLDEN / "good-dtype-f4.cmz", "np") as f:
        assert f.get_slice("t").get_shape() == [10, 20] and f.get_slice("t")[2:4].shape == (2, 10)


def test_a_file_is_written_whole_or_not_at_all(file, tmp_path, weights):
    with pytest.raises(cmz.RefusedError) as caught:
        cmz.numpy.save_file(weights, file, overwrite=False)
    assert caught.value.code == "CMZ5001"
    with pytest.raises(ZeroDivisionError):
        cmz.numpy.save_file(weights, tmp_path / "new.cmz", progress=lambda progress: 1 / 0)
    with pytest.raises(cmz.InvalidArgumentError, match="float128|longdouble"):
        cmz.numpy.save_file({"x": np.zeros(2, np.longdouble)}, tmp_path / "new.cmz")
    # If the file was done before the callback was called, it is there, and whole.
    for path in tmp_path.iterdir():
        cmz.verify(path)
