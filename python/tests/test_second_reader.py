"""The reference decoder reads what this package writes, of real weights, by every codec and at every level."""

import sys

import pytest
from conftest import REAL, ROOT, safetensors_file

import cmz

sys.path.insert(0, str(ROOT / "python/reference"))
from cmz_reference import CmzFile, MissingBase  # noqa: E402

F16 = ROOT / "tests/data/minilm-layer3-attention-f16.safetensors"
F32 = ROOT / "tests/data/minilm-layer5-attention-f32.safetensors"


def restored(path, bases=()):
    return CmzFile(path.read_bytes(), bases).source()


@pytest.mark.parametrize("source", [REAL, F16, F32], ids=lambda path: path.stem)
@pytest.mark.parametrize("options", [{"level": "fast"}, {"level": "max"}], ids=lambda options: options["level"])
def test_levels(source, options, tmp_path):
    cmz.compress(source, tmp_path / "file.cmz", **options)
    assert restored(tmp_path / "file.cmz") == source.read_bytes()


@pytest.mark.parametrize("codec", ["raw", "zstd", "tiered", "bitpack", "huffman", "rans"])
def test_codecs(codec, tmp_path):
    cmz.compress(F16, tmp_path / "file.cmz", codec=codec)
    assert restored(tmp_path / "file.cmz") == F16.read_bytes()


def test_bases(source, weights, tmp_path):
    weights["big"][::3] += 1e-4
    weights["half"][5] *= 2
    tuned = safetensors_file(tmp_path / "tuned.safetensors", weights)
    cmz.compress(source, tmp_path / "base.cmz")
    for level in ("fast", "max"):
        cmz.compress(tuned, tmp_path / "tuned.cmz", bases=[tmp_path / "base.cmz"], level=level, overwrite=True)
        base = CmzFile((tmp_path / "base.cmz").read_bytes())
        assert {"xor", "subtract"} & {tensor.encoding for tensor in cmz.inspect(tmp_path / "tuned.cmz").tensors}
        assert restored(tmp_path / "tuned.cmz", [base]) == tuned.read_bytes()
        with pytest.raises(MissingBase):
            restored(tmp_path / "tuned.cmz")
