"""One gradient step on the weights of a policy, by one process or several.

Each process has its own questions and every loss is divided by the whole, so that the gradients of the processes, like
those of the passes of one process, add up to the gradient of the batch: n processes do what one does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
from accelerate import Accelerator  # pyright: ignore[reportMissingTypeStubs]
from torch import Tensor

from grpo_dynamics.training.steps import sharding
from grpo_dynamics.training.tables import Optimization


class Ascent:
    """The weights that learn, and their optimiser.

    Args:
        model: of transformers; its weights may be spread over the processes.
        options: the table [optimization].
        accelerator: of the processes.
    """

    def __init__(self, model: Any, options: Optimization, accelerator: Accelerator) -> None:
        self.model, self.options, self.accelerator = model, options, accelerator
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.is_sharded = bool(sharding.parts(model))
        self.reset()
        if self.is_sharded:
            sharding.gather(model)

    def reset(self) -> None:
        """Forget what the optimiser has seen."""
        options = self.options
        if options.optimizer == "sgd":
            self.optimizer: torch.optim.Optimizer = torch.optim.SGD(self.parameters, lr=options.learning_rate)
        else:
            self.optimizer = torch.optim.AdamW(
                self.parameters,
                lr=options.learning_rate,
                betas=options.betas,
                weight_decay=options.weight_decay,
                fused=all(parameter.is_floating_point() for parameter in self.parameters) and not self.is_sharded,
            )

    def step(self, losses: Sequence[Callable[[], Tensor]], learning_rate: float) -> float:
        """Descend the sum of some losses over all processes.

        Args:
            losses: each computes one part, divided by the whole; computed one after the other to save memory.
            learning_rate: of this step.

        Returns:
            The length of the gradient before it was scaled down to max_grad_norm.

        Raises:
            FloatingPointError: if the gradient is not finite: the weights are left as they are.
        """
        norm = float(self.gradient(losses))
        self.move(norm, learning_rate)
        return norm

    def gradient(self, losses: Sequence[Callable[[], Tensor]]) -> Tensor:
        """Compute the gradient of a sum as in :meth:`step`; return its length, which is not waited for."""
        self.optimizer.zero_grad(set_to_none=True)
        # gradients of spread weights are averaged in the last backward pass, all others are added up below
        factor = self.accelerator.num_processes if self.is_sharded else 1
        if self.is_sharded and not losses:
            losses = [self._nothing]
        for i, loss in enumerate(losses, start=1):
            if self.is_sharded:
                sharding.scatter_gradients(self.model, i == len(losses))
            (loss() * factor).backward()
        return self._gradient_over_processes()

    def move(self, norm: float, learning_rate: float) -> None:
        """Take the step along the gradient, whose length is given, in its scaled-down form.

        Raises:
            FloatingPointError: if the gradient is not finite: the weights are left as they are.
        """
        if not norm < float("inf"):
            raise FloatingPointError(f"the gradient has the length {norm}: lower the learning rate")
        if self.options.max_grad_norm is not None and norm > self.options.max_grad_norm:
            for parameter in self.parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(self.options.max_grad_norm / (norm + 1e-6))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        if self.is_sharded:
            sharding.gather(self.model)

    def _nothing(self) -> Tensor:
        """A loss without a gradient, for a process that has to take part in an exchange."""
        token = torch.zeros((1, 1), dtype=torch.long, device=self.accelerator.device)
        return self.model(input_ids=token).logits.sum() * 0.0

    def _gradient_over_processes(self) -> Tensor:
        """Add the gradients of the processes, in one message; return the length of the sum."""
        if self.is_sharded:
            own = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
            norm: Any = torch.nn.utils.get_total_norm(own)
            return norm.full_tensor()
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        grads = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if self.accelerator.num_processes > 1:
            flat = torch.cat([grad.flatten() for grad in grads])
            flat: Any = self.accelerator.reduce(flat, reduction="sum")
            parts = torch.split(flat, [grad.numel() for grad in grads])
            for grad, part in zip(grads, parts, strict=True):
                grad.copy_(part.reshape(grad.shape))
        return torch.nn.utils.get_total_norm(grads)

    def weights(self) -> list[Tensor]:
        """Return a copy of the weights that learn."""
        return [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def set_weights(self, weights: Sequence[Tensor]) -> None:
        """Put weights back that :meth:`weights` returned."""
        for parameter, kept in zip(self.parameters, weights, strict=True):
            parameter.copy_(kept)
        if self.is_sharded:
            sharding.gather(self.model)

    @contextlib.contextmanager
    def at(self, weights: Sequence[Tensor]) -> Generator[None]:
        """Give the model other weights while the block runs: by exchanging pointers, where they are not sharded."""
        if self.is_sharded:
            own = self.weights()
            self.set_weights(weights)
        else:
            own = [parameter.data for parameter in self.parameters]
            for parameter, other in zip(self.parameters, weights, strict=True):
                parameter.data = other
        try:
            yield
        finally:
            if self.is_sharded:
                self.set_weights(own)
            else:
                for parameter, kept in zip(self.parameters, own, strict=True):
                    parameter.data = kept

    def total(self, value: float) -> float:
        """Return the sum of a number over all processes."""
        if self.accelerator.num_processes == 1:
            return value
        there = torch.tensor([value], dtype=torch.float64, device=self.accelerator.device)
        return float(self.accelerator.reduce(there, reduction="sum")[0])

    def mean(self, values: Tensor) -> float:
        """Return the mean of values of which every process has its own, such as one per question."""
        return self.total(float(values.double().sum())) / max(self.total(float(values.numel())), 1.0)

    def together(self, sums: Sequence[Tensor], largest: Tensor, same: Tensor) -> list[float]:
        """Return several numbers of all processes in one message: the device is waited for once.

        Args:
            sums: scalars of this process that are added up.
            largest: a scalar whose largest is wanted; NaN counts as infinite.
            same: a scalar that is the same in all processes.
        """
        own = torch.stack([x.double() for x in (*sums, largest.double().nan_to_num(nan=float("inf")), same)])
        if self.accelerator.num_processes == 1:
            return own.tolist()
        everyone: Any = self.accelerator.gather(own[None])
        rows: list[list[float]] = everyone.tolist()
        *added, most, equal = zip(*rows, strict=True)
        return [*map(sum, added), max(most), equal[0]]

    def largest(self, values: Tensor) -> float:
        """Return the largest of values of which every process has its own; NaN counts as infinite."""
        there = values.to(self.accelerator.device)  # where the processes exchange it
        own = there.double().nan_to_num(nan=float("inf")).amax().reshape(1)
        everyone: Any = self.accelerator.gather(own)
        return float(everyone.amax())
