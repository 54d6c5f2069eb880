"""The safetensors envelope: checkpoints that transformers loads by itself in a program that imports `cmz`.

Each tensor of a safetensors file is replaced by bytes under the same name: a `.cmz` file with that tensor alone. The configuration
names the quantization method `cmz`, and transformers calls what is registered here to get the tensors back. Without this package,
loading fails on the shapes, since the names are the parameters' own: it cannot come to a model of random weights.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path as FilePath
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import torch
from safetensors import safe_open as safetensors_open
from transformers.core_model_loading import ConversionOps
from transformers.quantizers import HfQuantizer, register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from . import _native
from ._errors import make
from ._files import Path, Slice
from .torch import save_file

_NAME = "tensor"


def pack(tensor: torch.Tensor, level: str) -> bytes:
    """A `.cmz` file with one tensor."""
    with TemporaryDirectory() as folder:
        file = FilePath(folder, "tensor.cmz")
        save_file({_NAME: tensor}, file, level=level)
        return file.read_bytes()


def unpack(packed: torch.Tensor) -> torch.Tensor:
    """The tensor in the bytes of a `.cmz` file."""
    data = bytes(packed.cpu().contiguous().numpy())
    return Slice(_native.Archive.from_bytes(data), _NAME, "torch")[...].to(packed.device)


@register_quantization_config("cmz")
class CmzConfig(QuantizationConfigMixin):
    """What `config.json` says of such a checkpoint: the last parts of its parameters' names."""

    def __init__(self, parameters: list[str] | None = None, **_: Any) -> None:
        self.quant_method = "cmz"  # type: ignore[assignment]  # Its own methods are an enumeration; registered ones are names.
        # After loading, the model is like any other.
        self.dequantize = True
        self.parameters = parameters or ["weight", "bias"]


class Decode(ConversionOps):
    """Decodes tensors while transformers loads them."""

    def __init__(self, hf_quantizer: HfQuantizer) -> None:
        self.hf_quantizer = hf_quantizer

    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        full_layer_name: str = "",
        model: Any = None,
        **_: Any,
    ) -> dict[str, Any]:
        try:
            dtype = model.get_parameter_or_buffer(full_layer_name).dtype
        except AttributeError:
            # It is to become a part of a parameter.
            dtype = model.dtype

        def decode(packed: torch.Tensor) -> torch.Tensor:
            tensor = unpack(packed)
            return tensor.to(dtype) if tensor.is_floating_point() else tensor

        return {
            name: [decode(packed) for packed in value] if isinstance(value, list) else decode(value) for name, value in input_dict.items()
        }

    @property
    def reverse_op(self) -> ConversionOps:
        return Keep()


class Keep(ConversionOps):
    """Saves tensors as they are."""

    def convert(self, input_dict: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        return input_dict


@register_quantizer("cmz")
class CmzQuantizer(HfQuantizer):
    """Loads such checkpoints. The name is transformers' own for whatever decodes weights: nothing is quantized."""

    requires_calibration = False
    quantization_config: CmzConfig

    def __init__(self, quantization_config: CmzConfig, **options: Any) -> None:
        super().__init__(quantization_config, **options)
        self.serialized_names = {name: [name] for name in quantization_config.parameters}

    def get_load_operations(self) -> dict[str, type[ConversionOps]]:
        return {"dequantize": Decode}

    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return True


def export_envelope(source: Path, target: Path, *, level: str = "fast") -> None:
    """Makes such a checkpoint in the new folder `target` of one with safetensors files. The configuration is written last."""
    folder, out = FilePath(os.fspath(source)), FilePath(os.fspath(target))
    files = sorted(folder.glob("*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        raise make(2001, f"{folder} is no folder with config.json and safetensors files", None, folder)
    out.mkdir(parents=True, exist_ok=False)
    dtypes: dict[str, torch.dtype] = {}
    for file in files:
        dtypes |= _export_file(file, out / file.name, level)
    for file in folder.iterdir():
        if file.is_file() and file not in files and file.name != "config.json":
            shutil.copyfile(file, out / file.name)
    config = json.loads((folder / "config.json").read_text())
    if not config.get("dtype") and not config.get("torch_dtype"):
        # transformers takes it from the tensors, which are bytes now.
        config["dtype"] = next((str(dtype).removeprefix("torch.") for dtype in dtypes.values() if dtype.is_floating_point), "float32")
    parameters = sorted({name.rpartition(".")[2] for name in dtypes})
    config["quantization_config"] = {"quant_method": "cmz", "dequantize": True, "parameters": parameters}
    (out / "config.json").write_text(json.dumps(config, indent=2))


def _export_file(source: FilePath, target: FilePath, level: str) -> dict[str, torch.dtype]:
    """Writes the envelope of one file. Returns the element types of its tensors, by their names."""
    header: dict[str, Any] = {}
    dtypes: dict[str, torch.dtype] = {}
    with safetensors_open(source, "pt") as file, TemporaryFile(dir=target.parent) as bodies, target.open("wb") as out:
        if metadata := file.metadata():
            header["__metadata__"] = metadata
        for name in file.keys():
            tensor, start = file.get_tensor(name), bodies.tell()
            dtypes[name] = tensor.dtype
            bodies.write(pack(tensor, level))
            header[name] = {"dtype": "U8", "shape": [bodies.tell() - start], "data_offsets": [start, bodies.tell()]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        out.write(len(text).to_bytes(8, "little") + text)
        bodies.seek(0)
        shutil.copyfileobj(bodies, out)
    return dtypes
