"""The part of :class:`~grpo_dynamics.training.engines.vllm_server.VLLMServer` that lives in the server's workers.

``--worker-extension-cls grpo_dynamics.training.engines.vllm_worker.WeightReader`` of ``vllm serve`` adds it to each.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from grpo_dynamics.training.engines.vllm_in_process import leave_unpacked

# The server's workers import this module before they make the model. Elsewhere nothing is to be done, nor imported.
if "vllm" in sys.modules and importlib.import_module("vllm.platforms").current_platform.is_cpu():
    leave_unpacked()


class WeightReader:
    """A mixin of vLLM's worker: reads new weights in place."""

    model_runner: Any

    def read_weights(self, folder: str) -> int:
        """Read every ``*.safetensors`` of the folder in place, each worker its own part; return how many files."""
        from safetensors import safe_open

        files = sorted(Path(folder).glob("*.safetensors"))
        for file in files:
            with safe_open(file, framework="pt") as tensors:
                names = list(tensors.keys())
                self.model_runner.model.load_weights((name, tensors.get_tensor(name)) for name in names)
        return len(files)
