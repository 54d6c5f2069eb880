"""Models of the package transformers from `.cmz` checkpoints, by its public functions alone."""

from __future__ import annotations

import os
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import transformers

from . import _gpu
from ._compressed import CompressedLinear, linear_weights, placeholders, replace_linears
from ._envelope import export_envelope
from ._errors import make
from ._files import CheckpointMapping, Path
from ._hub import local_folder

__all__ = ["Report", "export_envelope", "from_pretrained", "report"]


@dataclass(frozen=True)
class Report:
    """What of a model is resident, and how."""

    #: Linear layers, and those of them whose weights are compressed.
    linears: int
    compressed_linears: int
    #: Bytes of the compressed weights, and what they decode to.
    compressed_len: int
    decoded_len: int
    #: Bytes of all other parameters and buffers.
    dense_len: int

    def __str__(self) -> str:
        compressed = f"{self.compressed_linears}/{self.linears} linears, {_size(self.compressed_len)} for {_size(self.decoded_len)}"
        return f"resident compressed: {compressed}; resident dense: {_size(self.dense_len)}"


def _size(length: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if length >= scale:
            return f"{length / scale:.1f} {unit}"
    return f"{length} B"


def from_pretrained(
    path: Path,
    *,
    residency: str = "dense",
    model_class: type[transformers.PreTrainedModel] | None = None,
    config: transformers.PretrainedConfig | None = None,
    dtype: Any = "auto",
    device: object = "cpu",
    io: str = "auto",
    verify: str = "stored",
    threads: int = 0,
    revision: str | None = None,
    dequantize: bool = False,
    **options: Any,
) -> transformers.PreTrainedModel:
    """The model of a folder that `cmz.compress` has made of one with safetensors files, or of a repository of the Hub with such files.

    `residency`: "dense" decodes all weights now. "compressed" keeps those of linear layers as they are in the file, in the memory of the
    device or, on the CPU, where the file system caches them (with `io="memory"`, in this process), and decodes each in every forward pass:
    the same bits, less memory, more time. `device`: as for `cmz.safe_open`; dense weights are decoded by the device itself.
    `dequantize`: a quantized checkpoint (GPTQ, AWQ …) becomes the dense model that it stands for; otherwise transformers does with it what
    its configuration says. `model_class`: that of the configuration's first architecture if not given. `options` go to its
    `from_pretrained`.
    `cmz_report()` of the model says what is resident.
    """
    ordinal = _gpu.cuda_device(device, "torch")
    if residency not in ("dense", "compressed"):
        raise make(2001, f"residency={residency!r}", 'one of "dense", "compressed"')
    folder = local_folder(path, revision)
    config = transformers.AutoConfig.from_pretrained(folder) if config is None else config
    cls = model_class or _class_of(config)
    if dequantize and hasattr(config, "quantization_config"):
        config = copy(config)
        del config.quantization_config
    if residency == "dense" and ordinal is not None:
        options.setdefault("device_map", {"": _gpu.torch_device(ordinal)})
    # With compressed residency the rest comes to the device by way of the CPU: transformers would make room there for the whole model.
    decoding = "cpu" if ordinal is None or residency == "compressed" else ordinal
    tensors = CheckpointMapping(folder, device_for=lambda _: decoding, io=io, verify=verify, threads=threads, dequantize=dequantize)
    names: dict[str, str] = {}
    slices: Any = tensors.slices()
    if residency == "compressed":
        with torch.device("meta"):
            skeleton = cls(config)
        names = linear_weights(skeleton, tensors, cls.base_model_prefix)
        slices = placeholders(tensors, names)
    model = cls.from_pretrained(None, config=config, state_dict=slices, dtype=dtype, **options)
    replace_linears(model, tensors, names, ordinal)
    if ordinal is not None:
        model.to(_gpu.torch_device(ordinal))
    if model.can_generate() and os.path.isfile(os.path.join(folder, transformers.utils.GENERATION_CONFIG_NAME)):
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    model.__dict__["cmz_report"] = partial(report, model)
    return model


def _class_of(config: transformers.PretrainedConfig) -> type[transformers.PreTrainedModel]:
    for name in getattr(config, "architectures", None) or []:
        if cls := getattr(transformers, name, None):
            return cls
    raise make(2001, "the configuration names no architecture of transformers", "pass model_class")


def report(model: torch.nn.Module) -> Report:
    """What of a model is resident, and how."""
    compressed = [module for module in model.modules() if isinstance(module, CompressedLinear)]
    dense = sum(type(module) is torch.nn.Linear for module in model.modules())
    storages = {tensor.untyped_storage() for tensor in [*model.parameters(), *model.buffers()]}
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return Report(
        linears=dense + len(compressed),
        compressed_linears=len(compressed),
        compressed_len=sum(module.stored.stored_len for module in compressed),
        decoded_len=sum(module.stored.byte_len for module in compressed),
        dense_len=sum(sizes.values()),
    )
