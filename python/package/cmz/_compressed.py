"""Linear layers whose weights stay compressed and are decoded, block by block, in every forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from weakref import WeakValueDictionary

import torch
from torch import nn
from torch.nn import functional

from . import _gpu
from ._files import CheckpointMapping, Slice

_numbers = count()
_stored: WeakValueDictionary[int, StoredWeight] = WeakValueDictionary()


class StoredWeight:
    """A tensor of a checkpoint that operations know by its number. With the number of a CUDA device it lies there, as it is stored."""

    def __init__(self, tensors: CheckpointMapping, name: str, ordinal: int | None) -> None:
        self.slice = tensors.slice(name)
        archive = tensors.archive(name)
        _, _, self.byte_len, self.stored_len, *_ = archive.info(name)
        self.shape, self.dtype, self.device = self.slice.get_shape(), self.slice.dtype, torch.device("cpu")
        self._ordinal, self._resident = ordinal, None
        if ordinal is not None:
            self.device = _gpu.torch_device(ordinal)
            out = _gpu.empty(self.shape, self.dtype, ordinal)
            self._resident = _gpu.Resident(archive, (name, None), ordinal, 0, out.data_ptr(), _gpu.current_stream(ordinal))
            self.stored_len = self._resident.device_len
        self.number = next(_numbers)
        _stored[self.number] = self

    def decode(self) -> torch.Tensor:
        """The weight in new memory. On a CUDA device it is that of one before, which the stream has used by then: nothing waits."""
        if self._ordinal is None or self._resident is None:
            return self.slice[...]
        out = _gpu.empty(self.shape, self.dtype, self._ordinal)
        self._resident.decode(out.data_ptr(), _gpu.current_stream(self._ordinal))
        return out


@torch.library.custom_op("cmz::decode", mutates_args=())
def decode(number: int, shape: list[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The weight of this number, decoded into new memory."""
    return _stored[number].decode()


@decode.register_fake
def _(number: int, shape: list[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device=device)


class CompressedLinear(nn.Module):
    """A linear layer with the weight of `stored`, which is decoded whenever it is asked for. It is not trained, and stays on its device."""

    def __init__(self, stored: StoredWeight, bias: nn.Parameter | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features = stored.shape
        self.stored, self.bias = stored, bias
        self._arguments = (stored.number, stored.shape, stored.dtype, stored.device)
        self._computed_dtype = dtype

    @property
    def weight(self) -> torch.Tensor:
        """The decoded weight: new memory every time."""
        return decode(*self._arguments).to(self._computed_dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight, self.bias)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Placeholder(Slice):
    """A slice that is not read: one zero stands for all elements, so that a loader passes it on without memory."""

    def __getitem__(self, index):
        return torch.zeros((), dtype=self.dtype).expand(self.get_shape())[index]


def linear_weights(model: nn.Module, tensors: CheckpointMapping, prefix: str) -> dict[str, str]:
    """The linear layers of a model whose weight the checkpoint has as it is, with the weight's name there.

    The names of a model in a checkpoint may have `prefix`, the name of the model without its head, more or less than in the model.
    """
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    shared = set(tied) | set(tied.values())
    found = {}
    for name, module in model.named_modules():
        weight = f"{name}.weight"
        if type(module) is not nn.Linear or weight in shared:
            continue
        for candidate in (weight, f"{prefix}.{weight}", weight.removeprefix(f"{prefix}.")):
            stored = candidate in tensors and candidate not in tensors.dequantized
            if stored and tensors.slice(candidate).get_shape() == list(module.weight.shape):
                found[name] = candidate
                break
    return found


def placeholders(tensors: CheckpointMapping, names: Mapping[str, str]) -> dict[str, Slice]:
    """The checkpoint as slices, with placeholders for the weights in `names`."""
    slices = dict(tensors.slices())
    for name in names.values():
        slices[name].__class__ = Placeholder
    return slices


def replace_linears(model: nn.Module, tensors: CheckpointMapping, names: Mapping[str, str], ordinal: int | None) -> None:
    """Puts compressed layers in the place of those in `names`, on the CPU or the CUDA device of that number."""
    for name, weight in names.items():
        parent, _, last = name.rpartition(".")
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        layer = CompressedLinear(StoredWeight(tensors, weight, ordinal), linear.bias, linear.weight.dtype)
        layer.train(linear.training)
        setattr(model.get_submodule(parent), last, layer)
