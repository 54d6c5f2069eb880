"""Reading and writing files with jax."""

import numpy as np
import pytest
from conftest import REAL

jax = pytest.importorskip("jax", reason="jax is not installed: nothing of cmz.jax is tested")

import cmz  # noqa: E402


def test_there_and_back(tmp_path):
    arrays = {"w": jax.numpy.arange(12, dtype=jax.numpy.bfloat16).reshape(3, 4), "n": jax.numpy.array(7)}
    cmz.jax.save_file(arrays, tmp_path / "model.cmz")
    loaded = cmz.jax.load_file(tmp_path / "model.cmz")
    assert all(loaded[name].dtype == array.dtype and (loaded[name] == array).all() for name, array in arrays.items())


def test_the_same_as_numpy(tmp_path):
    [done] = cmz.compress(REAL, tmp_path / "layer.cmz")
    expected = cmz.numpy.load_file(done.target)
    with cmz.safe_open(done.target, "jax") as file:
        for name in file.keys():
            assert np.asarray(file.get_tensor(name)).tobytes() == expected[name].tobytes()
            assert np.asarray(file.get_slice(name)[2:5]).tobytes() == expected[name][2:5].tobytes()
