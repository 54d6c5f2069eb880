"""A model loader for vLLM: `vllm serve FOLDER --load-format cmz`. vLLM finds `register` by the entry point `vllm.general_plugins`.

Tensors are decoded on torch's current CUDA device, which vLLM has made that of its rank, or without one on the CPU; vLLM takes the parts of
each that a rank needs.
"""

from __future__ import annotations

import os
from typing import Any

_registered = False


def register() -> None:
    """Adds the load format `cmz`. vLLM calls this in each of its processes, and maybe more than once."""
    global _registered
    if _registered:
        return
    from vllm.model_executor.model_loader import register_model_loader
    from vllm.model_executor.model_loader.base_loader import BaseModelLoader

    @register_model_loader("cmz")
    class CmzModelLoader(BaseModelLoader):
        """Loads `.cmz` checkpoints."""

        def download_model(self, model_config: Any) -> None:
            _folder(model_config)

        def load_weights(self, model: Any, model_config: Any) -> None:
            from .torch import iter_tensors

            model.load_weights(iter_tensors(_folder(model_config), device="auto"))

    _registered = True


def _folder(model_config: Any) -> str:
    """The model's folder, fetched from the Hub if it is the name of a repository there."""
    model = model_config.model
    if os.path.isdir(model):
        return model
    from huggingface_hub import snapshot_download

    return snapshot_download(model, revision=model_config.revision)
