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


def test_each_expert_of_a_stack_has_its_own_hessian():
    from collect_statistics import Hessians, counted

    class Experts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.up = torch.nn.Parameter(torch.randn(3, 5, 6))
            self.down = torch.nn.Parameter(torch.randn(3, 6, 5))
            self.unused = torch.nn.Linear(7, 2)

        def forward(self, x, expert_of):
            rows = x.reshape(-1, x.shape[-1])
            out = torch.zeros_like(rows)
            for expert in range(3):
                tokens = torch.where(expert_of.flatten() == expert)[0]
                inner = torch.relu(torch.nn.functional.linear(rows[tokens], self.up[expert]))
                out[tokens] = torch.nn.functional.linear(inner, self.down[expert])
            return out

    torch.manual_seed(0)
    model, x = Experts(), torch.randn(2, 4, 6)
    ids = torch.tensor([[1, 2, 3, 40], [5, 6, 7, 8]])
    expert_of = torch.tensor([[0, 2, 2, 0], [2, 0, 2, 2]])
    hessians = Hessians(model)
    hessians.mask = counted(ids, torch.ones(2, 4), 32, 8)
    # 40 is special, and 3 and 7 come before tokens from 8 on.
    assert hessians.mask.tolist() == [[True, True, False, False], [True, True, False, True]]
    with torch.no_grad(), hessians:
        model(x, expert_of)
    tensors = hessians.tensors()
    assert sorted(tensors) == ["down.hessian", "unused.weight.hessian", "up.hessian"]
    assert not tensors["unused.weight.hessian"].any() and not tensors["up.hessian"][1].any()
    for expert in (0, 2):
        seen = x[hessians.mask & (expert_of == expert)]
        torch.testing.assert_close(tensors["up.hessian"][expert], 2 / len(seen) * seen.T @ seen)
        inner = torch.relu(seen @ model.up[expert].T).detach()
        torch.testing.assert_close(tensors["down.hessian"][expert], 2 / len(inner) * inner.T @ inner)
