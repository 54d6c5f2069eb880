"""The loader plugin with a stand-in for vLLM, which needs a GPU: what it registers, and what it hands to the model."""

import sys
from importlib.metadata import entry_points
from types import ModuleType, SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: the vLLM plugin is not tested")

import cmz.torch  # noqa: E402
import cmz.vllm  # noqa: E402


@pytest.fixture
def loaders(monkeypatch):
    """Load formats that were registered."""
    found = {}

    class BaseModelLoader:
        def __init__(self, load_config):
            self.load_config = load_config

    package = ModuleType("vllm.model_executor.model_loader")
    package.register_model_loader = lambda name: lambda cls: found.setdefault(name, cls)
    base = ModuleType("vllm.model_executor.model_loader.base_loader")
    base.BaseModelLoader = BaseModelLoader
    for module in (ModuleType("vllm"), ModuleType("vllm.model_executor"), package, base):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(cmz.vllm, "_registered", False)
    return found


def test_the_entry_point_registers_once(loaders):
    [entry] = entry_points(group="vllm.general_plugins", name="cmz")
    register = entry.load()
    register()
    first = loaders.copy()
    register()
    assert list(first) == ["cmz"] and loaders == first


def test_weights_reach_the_model(loaders, tmp_path):
    weight = torch.randn(6, 4)
    cmz.torch.save_file({"a.weight": weight, "a.bias": torch.ones(6)}, tmp_path / "model.cmz")
    cmz.vllm.register()
    taken = {}
    model = SimpleNamespace(load_weights=taken.update)
    config = SimpleNamespace(model=str(tmp_path), revision=None)
    loader = loaders["cmz"](None)
    loader.download_model(config)
    loader.load_weights(model, config)
    assert taken.keys() == {"a.weight", "a.bias"} and torch.equal(taken["a.weight"], weight)
