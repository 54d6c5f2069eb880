"""A model loader for vLLM: `vllm serve FOLDER --load-format cmz`. vLLM finds `register` by the entry point `vllm.general_plugins`.

Tensors are decoded on torch's current CUDA device, which vLLM has made that of its rank, or without one on the CPU; vLLM takes the parts of
each that a rank needs.
"""

from __future__ import annotations

from typing import Any

from ._hub import local_folder

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
            local_folder(model_config.model, model_config.revision)

        def load_weights(self, model: Any, model_config: Any) -> None:
            from .torch import iter_tensors

            model.load_weights(iter_tensors(local_folder(model_config.model, model_config.revision), device="auto"))

    _registered = True
