"""The scripts in tools/."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent.parent / "tools"))

import text  # noqa: E402


def test_paragraphs_are_split_for_good(tmp_path):
    sentences = [f"this is paragraph number {i} of a text with enough words" for i in range(11)]
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join([*sentences, "too short", sentences[0]]))
    found = text.paragraphs([file])
    assert found == sentences
    calibration, held_out = text.split(found)
    assert held_out == [sentences[4], sentences[9]]
    assert sorted(calibration + held_out) == sorted(sentences)


def test_the_standard_library_has_enough_text():
    found = text.paragraphs()
    assert len(found) > 3000
    assert len(set(found)) == len(found)


def test_a_hessian_is_that_of_the_inputs():
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
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
