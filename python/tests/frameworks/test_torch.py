"""Reading and writing files with torch."""

import runpy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import GOLDEN, REAL

import cmz

torch = pytest.importorskip("torch", reason="torch is not installed: nothing of cmz.torch is tested")

import cmz.torch  # noqa: E402


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(-1).view(torch.uint8), b.view(-1).view(torch.uint8))


@pytest.fixture
def tensors():
    torch.manual_seed(1)
    big = (torch.randn(700, 512) * 0.02).bfloat16()
    return {
        "big": big,
        "tied": big,
        "transposed": torch.randn(5, 9).T,
        "f8": torch.randn(16, 8).to(torch.float8_e4m3fn),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "none": torch.empty(0, 3),
        "mask": torch.tensor([True, False]),
        "requires": torch.nn.Parameter(torch.randn(3)),
    }


@pytest.fixture
def file(tmp_path, tensors):
    cmz.torch.save_file(tensors, tmp_path / "model.cmz", {"format": "pt"})
    return tmp_path / "model.cmz"


def test_there_and_back(file, tensors):
    loaded = cmz.torch.load_file(file)
    assert loaded.keys() == tensors.keys()
    assert all(same(loaded[name], tensors[name].contiguous()) for name in tensors)
    assert loaded["big"].data_ptr() != loaded["tied"].data_ptr() and loaded["big"].data_ptr() % 64 == 0
    assert {t.name: t.encoding for t in cmz.inspect(file).tensors}["tied"] == "same_as"
    assert dict(cmz.torch.iter_tensors(file)).keys() == tensors.keys()


def test_a_typed_program_runs(tmp_path):
    """mypy checks it, too."""
    runpy.run_path(str(Path(__file__).parents[1] / "typed/tensors.py"))["main"](REAL, tmp_path)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("good-dtype-*.cmz")), ids=lambda path: path.stem)
def test_every_element_type(path, tmp_path):
    loaded = cmz.torch.load_file(path)
    archive = cmz._native.Archive(str(path))
    for name, tensor in loaded.items():
        memory = bytearray(archive.info(name)[2])
        archive.read_into([(name, 0, memory)])
        assert bytes(tensor.contiguous().view(-1).view(torch.uint8).tolist()) == memory
    cmz.torch.save_file(loaded, tmp_path / "again.cmz")
    assert all(same(tensor, loaded[name]) for name, tensor in cmz.torch.load_file(tmp_path / "again.cmz").items())


def test_the_same_as_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    [done] = cmz.compress(REAL, tmp_path / "layer.cmz")
    expected = safetensors.load_file(REAL)
    loaded = cmz.torch.load_file(done.target)
    assert loaded.keys() == expected.keys() and all(same(loaded[name], expected[name]) for name in expected)
    with cmz.safe_open(done.target) as ours, safetensors.safe_open(REAL, "pt") as theirs:
        assert ours.keys() == sorted(theirs.keys()) and ours.metadata() == theirs.metadata()
        for name in ours.keys():
            mine, other = ours.get_slice(name), theirs.get_slice(name)
            assert mine.get_shape() == other.get_shape() and mine.get_dtype() == other.get_dtype()
            assert same(mine[3:17].contiguous(), other[3:17].contiguous())
            assert mine.dtype == torch.bfloat16 and mine.is_floating_point()


def test_a_module_takes_the_mapping(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(8, 5), torch.nn.LayerNorm(5))
    cmz.torch.save_file(module.state_dict(), tmp_path / "module.cmz")
    mapping = cmz.CheckpointMapping(tmp_path / "module.cmz")
    with torch.device("meta"):
        empty = torch.nn.Sequential(torch.nn.Linear(8, 5), torch.nn.LayerNorm(5))
    empty.load_state_dict(mapping, strict=True, assign=True)
    x = torch.randn(2, 8)
    assert torch.equal(empty(x), module(x))
    with pytest.raises(KeyError):
        mapping["no"]


def test_accelerate_takes_the_mapping(tmp_path):
    hooks = pytest.importorskip("accelerate.hooks")
    module = torch.nn.Sequential(torch.nn.Linear(8, 5), torch.nn.LayerNorm(5))
    cmz.torch.save_file(module.state_dict(), tmp_path / "module.cmz")
    x = torch.randn(2, 8)
    expected = module(x)
    empty = torch.nn.Sequential(torch.nn.Linear(8, 5), torch.nn.LayerNorm(5)).to("meta")
    weights = cmz.CheckpointMapping(tmp_path / "module.cmz")
    hooks.attach_align_device_hook(empty, execution_device="cpu", offload=True, weights_map=weights)
    assert torch.equal(empty(x), expected)
    assert all(parameter.is_meta for parameter in empty.parameters())


def test_several_threads_at_once(file, tensors):
    with cmz.safe_open(file) as f, ThreadPoolExecutor(8) as pool:
        names = list(tensors) * 10
        assert all(same(t, tensors[name].contiguous()) for name, t in zip(names, pool.map(f.get_tensor, names)))


def test_decoding_into_memory_of_the_caller(file, tensors):
    with cmz.safe_open(file) as f:
        out = torch.zeros(700, 512, dtype=torch.bfloat16)
        f.decode_into("big", out)
        assert same(out, tensors["big"])
        part = bytearray(3 * 1024)
        f.decode_into("big", part, rows=slice(5, 8))
        assert bytes(part) == bytes(tensors["big"][5:8].view(torch.uint8).flatten().tolist())
        f.decode_into("none", torch.empty(0, 3))
        for wrong in (out[:5], out.T, bytes(out.nbytes), 5):
            with pytest.raises((cmz.InvalidArgumentError, TypeError)):
                f.decode_into("big", wrong)
