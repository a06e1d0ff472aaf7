"""The slot: a place in a model where a function is called, with its content, and hooks that watch its inputs."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import Domain, Function
from trans4init.ablations.nets import Net
from trans4init.ablations.seeding import keyed_generator
from trans4init.ablations.slots.contents import Analytic, Content, FoldedTable, NetContent, TrainableTable, folded

__all__ = ["Slot", "observed_inputs", "observed_ranges", "sampled_inputs", "slots_named"]


_FUSED_EVERY = 8
"""Fused slots are observed on every eighth forward pass only: watching them costs an unfused pass."""


class Slot(nn.Module):
    """Marks a place in a model where a function is called.

    It starts with the closed form, or, where the function has none, with a trainable table drawn from `seed`.
    name: the kind of place, such as `position`. domain: the inputs that it gets in training. shape: the function's.
    Raises InputError for a function that belongs in another slot, or has another shape.
    """

    def __init__(
        self, name: str, function: Function, domain: Domain | None = None, *, seed: int = 0, **shape: int
    ) -> None:
        super().__init__()
        if function.slot != name:
            raise InputError(f"{function.name} belongs in slot {function.slot!r}, not in {name!r}.")
        function.check_shape(**shape)
        self.name, self.function, self.shape = name, function, shape
        self.domain = function.domain if domain is None else domain
        self.numbers = nn.ParameterDict(
            {number: nn.Parameter(torch.tensor(start)) for number, start in function.trained_numbers.items()}
        )
        self.watch: Callable[[Tensor], None] | None = None
        """Called with every input while the slot is observed."""
        self.content: Content = (
            self.analytic() if function.closed_form else self.table(keyed_generator(seed, name, "table"))
        )

    def analytic(self) -> Content:
        """Make the closed form for this slot, folded to a table where the slot's domain is finite."""
        return self.fold(Analytic(self.function, self.shape))

    def table(self, generator: torch.Generator) -> Content:
        """Make a trainable table of the function's values; raises InputError where the slot's domain is not finite."""
        if not self.domain.integer:
            raise InputError(f"a table needs a finite domain, and {self.function.name} is asked for on the reals.")
        rows = self.function.initial_table(self.domain.points(), generator, **self.shape)
        return TrainableTable(self.function, self.shape, self.domain, rows.float())

    def net_content(
        self, net: Net | None, generator: torch.Generator | None = None, *, bare: bool = False
    ) -> NetContent:
        """Put a copy of the net in the function's place, with values drawn anew where there is a `generator`.

        bare: as of `NetContent`. Raises InputError for a net whose inputs or outputs are not the function's.
        """
        assert net is not None  # apply_arm has refused None for an arm that uses a net
        net = copy.deepcopy(net)
        if generator is not None:
            net.initialise(generator)
        return NetContent(self.function, self.shape, net, bare=bare)

    def fold(self, content: Content) -> Content:
        """Fold a content that doesn't change to a table or a polyline; give it back where neither is possible."""
        return folded(content, self.domain) or content

    @property
    def fused(self) -> bool:
        """Whether the model may compute this place by its own fused operation: it holds a closed form that has one."""
        content = self.content.content if isinstance(self.content, FoldedTable) else self.content
        return self.function.fused and isinstance(content, Analytic)

    def forward(self, inputs: Tensor, highest: int | None = None, *, hidden: Tensor | None = None) -> Tensor:
        """Compute the function's values by the slot's content.

        highest: the largest of integer inputs that count from the domain's start, where the caller knows it. Without
        it the inputs are looked at, and on a GPU that waits until they are computed. hidden: true where an input means
        nothing and its value will not be used; an observer is shown −∞ there.
        """
        if self.watch is not None:
            self.watch(inputs if hidden is None else inputs.masked_fill(hidden, -math.inf))
        values: Tensor = self.content(inputs, highest)
        return values

    def added_to(self, state: Tensor, inputs: Tensor, highest: int | None = None) -> Tensor:
        """Add the values of inputs [N] to every entry of a state [B, N, outputs]; `highest` as of `forward`."""
        if self.watch is not None:
            self.watch(inputs)
        values: Tensor = self.content.added_to(state, inputs, highest)
        return values

    @torch.no_grad()
    def drift(self) -> tuple[float, float] | None:
        """Return the largest and the RMS distance of the content from the closed form on the slot's domain.

        None for a function without a closed form.
        """
        if not self.function.closed_form:
            return None
        points = self.function.points(self.domain, **self.shape)
        inputs = points.long() if self.domain.integer else points.to(self.content.dtype_like.dtype)
        values = self.content(inputs.to(self.content.dtype_like.device)).double().cpu()
        distance = values - self.function.analytic(points, **self.shape)
        return distance.abs().max().item(), distance.square().mean().sqrt().item()


def slots_named(model: nn.Module, name: str) -> dict[str, Slot]:
    """Return the slots of that name by their path in the model; raises InputError where the model has no such slot."""
    slots = {path: module for path, module in model.named_modules() if isinstance(module, Slot)}
    named = {path: slot for path, slot in slots.items() if slot.name == name}
    if not named:
        known = ", ".join(sorted({slot.name for slot in slots.values()})) or "none"
        raise InputError(f"the model has no slot {name!r}; its slots are: {known}.")
    return named


@contextmanager
def observed_inputs(model: nn.Module, see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call `see` with a slot's path and inputs at every call of the model, at every eighth where the slot is fused.

    Observing a fused slot makes the model compute the slot's inputs, which the fused operation does without: done at
    every call, an evaluation would take three times as long.
    """
    slots = {path: module for path, module in model.named_modules() if isinstance(module, Slot)}
    calls = 0

    def watch(*_: object) -> None:
        nonlocal calls
        for path, slot in slots.items():
            slot.watch = None if slot.fused and calls % _FUSED_EVERY else partial(_see, see, path)
        calls += 1

    handle = model.register_forward_pre_hook(watch)
    try:
        watch()  # for a caller that runs a part of the model: the hook is called for the whole model alone
        calls = 0
        yield
    finally:
        handle.remove()
        for slot in slots.values():
            slot.watch = None


def _see(see: Callable[[str, Tensor], None], path: str, inputs: Tensor) -> None:
    see(path, inputs.detach())


@contextmanager
def observed_ranges(model: nn.Module) -> Iterator[dict[str, tuple[float, float]]]:
    """Record the lowest and the highest input of each slot by the slot's path; the dictionary is filled meanwhile.

    Scores of −∞, which stand for keys that are not seen, are left out of the lowest.
    """
    ranges: dict[str, tuple[float, float]] = {}

    def see(path: str, inputs: Tensor) -> None:
        low, high = ranges.get(path, (math.inf, -math.inf))
        least = torch.where(inputs == -math.inf, math.inf, inputs) if inputs.is_floating_point() else inputs
        ranges[path] = (min(low, least.min().item()), max(high, inputs.max().item()))

    with observed_inputs(model, see):
        yield ranges


@contextmanager
def sampled_inputs(model: nn.Module, each: int = 256) -> Iterator[dict[str, Tensor]]:
    """Collect a sample of each slot's inputs, [N] by the slot's path, as `fit` takes it for a density.

    The dictionary is filled at the end. From every call it takes at most `each` inputs, evenly spaced; −∞, which stands
    for a number that is not part of its row, is left out.
    """
    samples: dict[str, list[Tensor]] = {}
    densities: dict[str, Tensor] = {}

    def see(path: str, inputs: Tensor) -> None:
        flat = inputs.reshape(-1)
        flat = flat[flat > -math.inf] if flat.is_floating_point() else flat
        samples.setdefault(path, []).append(flat[:: max(1, math.ceil(len(flat) / each))].clone().cpu())

    with observed_inputs(model, see):
        yield densities
    densities.update({path: torch.cat(parts) for path, parts in samples.items()})
