"""Train several runs of one model as one tensor program, by torch.func."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.tasks import Batch, Task
from trans4init.ablations.training.loop import TrainingStep
from trans4init.ablations.transformer import Transformer

__all__ = ["TrialArray"]


class TrialArray:
    """R models of one shape, with an optimiser: a call trains each on its batch, as `TrainingStep` would.

    It knows neither dropout nor autocast, accumulation or compilation, and raises ValueError for a configuration that
    asks for one. The models that are passed in don't change.
    """

    def __init__(self, models: Sequence[Transformer], task: Task, config: TrainingConfig) -> None:
        if config.precision != "float32" or config.accumulate > 1 or config.compile:
            raise ValueError("a trial array trains in its models' precision, without accumulation or compilation")
        self.config, self.steps = config, 0
        values, buffers = stack_module_state(list(models))
        names = {parameter: name for name, parameter in models[0].named_parameters()}
        moves = {name for parameter, name in names.items() if parameter.requires_grad}
        self._values = {name: value.detach().clone() for name, value in values.items() if name in moves}
        self._fixed = {name: value.detach() for name, value in values.items() if name not in moves} | buffers
        single = TrainingStep(models[0], task, config).optimiser
        groups = [
            group | {"params": [self._values[names[parameter]] for parameter in group["params"]]}
            for group in single.param_groups
        ]
        self._optimiser = torch.optim.AdamW(groups, betas=(config.beta1, config.beta2))
        skeleton = copy.deepcopy(models[0])

        def loss(values: dict[str, Tensor], fixed: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
            model = _Called(skeleton, values | fixed)
            return task.loss(model, Batch(inputs, targets), config.label_smoothing)

        self._gradients = vmap(grad_and_value(loss))

    def __call__(self, batches: Sequence[Batch]) -> Tensor:
        """Train each run on its batch, all of one shape; return their losses before the update, [R]."""
        inputs, targets = (torch.stack([getattr(batch, name) for batch in batches]) for name in ("inputs", "targets"))
        gradients, losses = self._gradients(self._values, self._fixed, inputs, targets)
        norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients.values()]).norm(dim=0)
        shares = (self.config.clip / (norms + 1e-6)).clamp(max=1)  # as clip_grad_norm_ does, for each run by itself
        for name, value in self._values.items():
            value.grad = gradients[name] * shares.view(-1, *[1] * (value.dim() - 1))
        for group in self._optimiser.param_groups:
            group["lr"] = group["initial_lr"] * self.config.learning_rate_factor(self.steps)
        self._optimiser.step()
        self.steps += 1
        result: Tensor = losses.detach()
        return result


class _Called(nn.Module):
    """Calls a module with other values of its parameters and buffers."""

    def __init__(self, module: nn.Module, values: dict[str, Tensor]) -> None:
        super().__init__()
        self._call = (module, values)  # in a tuple, so that nn.Module doesn't take them for parameters of this module

    def forward(self, *arguments: Tensor) -> Tensor:
        module, values = self._call
        result: Tensor = functional_call(module, values, arguments)
        return result
