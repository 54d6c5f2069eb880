"""A component of diffusers, built on the meta device and filled from a checkpoint."""

import pytest

import cmz

torch = pytest.importorskip("torch", reason="torch is not installed: no component of diffusers is tested")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: no component of it is tested")


def test_a_component_takes_the_mapping(tmp_path):
    torch.manual_seed(3)
    component = diffusers.AutoencoderKL(block_out_channels=(32,), norm_num_groups=8, latent_channels=4)
    component.save_pretrained(tmp_path / "plain")
    cmz.compress(tmp_path / "plain", tmp_path / "cmz")
    expected = diffusers.AutoencoderKL.from_pretrained(tmp_path / "plain")
    with torch.device("meta"):
        loaded = diffusers.AutoencoderKL.from_config(diffusers.AutoencoderKL.load_config(tmp_path / "cmz"))
    loaded.load_state_dict(cmz.CheckpointMapping(tmp_path / "cmz"), assign=True)
    image = torch.randn(1, 3, 16, 16)
    with torch.inference_mode():
        assert torch.equal(loaded.eval()(image).sample, expected.eval()(image).sample)
