"""The statistics that tools/collect_statistics.py takes of a model."""

import sys

import pytest
from conftest import TOOLS

torch = pytest.importorskip("torch", reason="torch is not installed: no statistics are collected")
pytest.importorskip("transformers", reason="transformers is not installed: no statistics are collected")

sys.path.append(str(TOOLS))


def test_a_hessian_is_that_of_the_inputs():
    from collect_statistics import Hessians

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    hessians = Hessians(model)
    inputs = []
    for real in ([4, 2], [3, 3]):
        x = torch.randn(2, 4, 6)
        hessians.mask = torch.arange(4) < torch.tensor(real)[:, None]
        model(x)
        inputs.append(x[hessians.mask])
    x = torch.cat(inputs)
    hidden = torch.relu(model[0](x))
    tensors = hessians.tensors()
    assert sorted(tensors) == ["0.weight.hessian", "2.weight.hessian"]
    for name, seen in (("0", x), ("2", hidden)):
        torch.testing.assert_close(tensors[f"{name}.weight.hessian"], 2 / len(seen) * seen.T @ seen)
