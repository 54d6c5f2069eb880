"""Weights that the tensors of quantized checkpoints stand for."""

import hashlib

import numpy as np
import pytest
from conftest import GOLDEN

import cmz

pytest.importorskip("ml_dtypes")
DIGESTS = [line.split() for line in (GOLDEN / "views.sha256").read_text().splitlines()]


@pytest.mark.parametrize(("digest", "file", "name"), DIGESTS, ids=[name for *_, name in DIGESTS])
def test_views_are_what_they_should_be(digest, file, name):
    with cmz.safe_open(GOLDEN / f"{file}.cmz", "np", threads=2) as f:
        assert name in f.views() and name not in f.keys()
        view = f.get_view(name)
        whole = view[...]
        assert whole.shape == view.shape and whole.dtype == view.dtype and set(view.parts) <= set(f.keys()) and view.layout
        assert hashlib.sha256(whole.tobytes()).hexdigest() == digest
        for rows in (slice(1, 3), slice(0, 0), slice(None, None, 2), -1, (slice(1, 2), slice(None, 3))):
            assert np.asarray(view[rows]).tobytes() == whole[rows].tobytes()


def test_what_is_no_view():
    with cmz.safe_open(GOLDEN / "good-views.cmz", "np") as f:
        for name in ("no", f.keys()[0]):
            with pytest.raises(KeyError) as caught:
                f.get_view(name)
            assert caught.value.tensor == name
        with pytest.raises(KeyError):
            f.get_tensor(f.views()[0])
    with cmz.safe_open(GOLDEN / "good-views-unreadable.cmz", "np") as f:
        codes = set()
        for name in f.views():
            with pytest.raises(cmz.CmzError) as caught:
                f.get_view(name)[...]
            codes.add(caught.value.code)
        assert codes and all(f.get_tensor(name) is not None for name in f.keys())
    with cmz.safe_open(GOLDEN / "good-base.cmz", "np") as f:
        assert f.views() == []


def test_the_mapping_of_weights():
    stored = cmz.CheckpointMapping(GOLDEN / "good-views.cmz", "np")
    weights = cmz.CheckpointMapping(GOLDEN / "good-views.cmz", "np", dequantize=True)
    with cmz.safe_open(GOLDEN / "good-views.cmz", "np") as f:
        parts = {part for name in f.views() for part in f.get_view(name).parts}
        names = {name.removesuffix(".dequantized"): name for name in f.views()}
        assert weights.keys() == (stored.keys() - parts) | names.keys() and weights.dequantized == names.keys()
        for name, view in names.items():
            assert weights[name].tobytes() == f.get_view(view)[...].tobytes()
