r"""Sampling with a vLLM server: a process, or a machine, of its own that speaks the OpenAI completions interface.

Start it where the trainer and the server see one folder, with the extension that reads new weights from there::

    VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --generation-config vllm \
        --worker-extension-cls grpo_dynamics.training.engines.vllm_worker.WeightReader

The development mode opens the two requests a trainer needs, to any client that reaches the server: bind it to a
private address. After every update the weights are written to the folder, each worker reads them in place, the prefix
cache is dropped, and the server's log-probabilities are compared with torch's. (vLLM also moves weights between GPUs
by NCCL; that needs GPUs on both sides, a folder works everywhere.)
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save_file
from torch import Tensor

from grpo_dynamics.training.engines.weights import TOLERANCE, PushReport, checked_push, merged_weights, probes
from grpo_dynamics.training.rollouts import RolloutOptions, Samples, pack, require_request, sampling_parameters

AT_ONCE = 64
"""Requests under way; the server batches what is there. A prompt is a request, since it has a seed of its own."""
SECONDS = 3600.0
"""Wait for an answer this long."""
HOW = (
    "start it as `VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --generation-config vllm "
    "--worker-extension-cls grpo_dynamics.training.engines.vllm_worker.WeightReader`"
)


class VLLMServer:
    """Draws with a vLLM server; several processes of a trainer may share one.

    Args:
        policy: has ``model``, ``pad_id`` and ``eos_id``; the server serves a model of the same shape.
        options: ``url``, ``weights_dir`` and ``tolerance`` of
            :class:`~grpo_dynamics.training.rollouts.RolloutOptions`.

    Raises:
        ValueError: if there is no such server, or it takes no weights.
        RuntimeError: if the weights do not reach it.
    """

    name = "vllm_server"

    def __init__(self, policy: Any, options: RolloutOptions) -> None:
        if options.url is None or options.weights_dir is None:
            raise ValueError("url and weights_dir must be given with engine='vllm_server'")
        self.policy, self.url = policy, options.url.rstrip("/")
        self.folder = Path(options.weights_dir).resolve()
        served = self._ask("/v1/models")["data"][0]
        self.served, self.longest = served["id"], int(served["max_model_len"])
        parameter = next(policy.model.parameters())
        self.device = parameter.device
        dtype = getattr(torch, options.dtype) if options.dtype else parameter.dtype
        self.tolerance = options.tolerance or TOLERANCE[dtype]
        self._probes = probes(policy.model.config.vocab_size, self.longest)
        self.push(policy.model)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the weights from the folder; the server belongs to whoever started it."""
        for file in self.folder.glob("rollout-weights/*.safetensors*"):
            file.unlink(missing_ok=True)

    def push(self, model: Any) -> PushReport:
        """Bring the weights of ``model`` to the server, adapters merged; RuntimeError if they do not arrive.

        With several processes each calls it, and the first one writes.
        """
        return checked_push(self.name, lambda: self._write(model), self._score, model, self._probes, self.tolerance)

    def sample(
        self, prompts: Sequence[Sequence[int]], group_size: int, max_tokens: int, seeds: Sequence[int]
    ) -> Samples:
        """Draw ``group_size`` completions for each prompt.

        Args:
            prompts: token ids.
            group_size: G ≥ 1.
            max_tokens: length at which a completion is cut off.
            seeds: one per prompt, in [0, 2**63).
        """
        require_request(prompts, group_size, max_tokens, seeds, self.longest)
        eos = self.policy.eos_id
        requests = [
            {"prompt": list(prompt), **sampling_parameters(group_size, max_tokens, seed, eos)}
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        completions = [
            [(choice["token_ids"], choice["logprobs"]["token_logprobs"]) for choice in sorted(choices, key=by_index)]
            for choices in self._complete(requests)
        ]
        return pack(prompts, completions, self.policy.pad_id, eos, self.device)

    def _write(self, model: Any) -> None:
        several = torch.distributed.is_initialized()
        weights = {name: tensor.contiguous().cpu() for name, tensor in merged_weights(model)}
        if not several or torch.distributed.get_rank() == 0:
            folder = self.folder / "rollout-weights"
            folder.mkdir(parents=True, exist_ok=True)
            save_file(weights, folder / "model.safetensors.part")
            os.replace(folder / "model.safetensors.part", folder / "model.safetensors")
            files = self._ask("/collective_rpc", {"method": "read_weights", "args": [str(folder)]})["results"]
            if set(files) != {"1"}:
                raise RuntimeError(f"the vLLM server does not see the weights in weights_dir={str(self.folder)!r}")
            self._ask("/reset_prefix_cache", {})
        if several:
            torch.distributed.barrier()

    def _score(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        shorter = [list(sequence)[: self.longest - 1] for sequence in sequences]
        requests = [{"prompt": ids, "max_tokens": 1, "prompt_logprobs": 0, "seed": 0} for ids in shorter]
        return torch.tensor(
            [
                step[str(token)]["logprob"]
                for sequence, choices in zip(shorter, self._complete(requests), strict=True)
                for token, step in zip(sequence[1:], choices[0]["prompt_logprobs"][1:], strict=True)
            ]
        )

    def _complete(self, requests: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """Choices of each request, in the order of the requests."""
        asked = {"model": self.served, "return_token_ids": True, "add_special_tokens": False}
        with ThreadPoolExecutor(AT_ONCE) as threads:
            answers = threads.map(self._ask, ["/v1/completions"] * len(requests), [{**asked, **r} for r in requests])
            return [answer["choices"] for answer in answers]

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """What the server answers to a GET, or to a POST if there is a body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:300]
            if path == "/collective_rpc":
                raise ValueError(f"the vLLM server at {self.url} takes no weights ({error.code}): {HOW}") from None
            raise ValueError(f"the vLLM server at {self.url} refused {path} ({error.code}): {said}") from None
        except (OSError, ValueError) as error:
            raise ValueError(f"url must be that of a running vLLM server, got {self.url!r} ({error}); {HOW}") from None
        return json.loads(text) if text else None


def by_index(choice: dict[str, Any]) -> int:
    """Sorts the completions of a request as they were drawn."""
    return choice["index"]
