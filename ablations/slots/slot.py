"""Slots: the places in a model where a function is called, and what they are seen to be given."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import Domain, Function
from trans4init.ablations.seeding import keyed_generator
from trans4init.ablations.slots.contents import Analytic, Content, Folded, FoldedKnots, NetContent, TrainableTable

__all__ = ["Slot", "observed_inputs", "observed_ranges", "sampled_inputs", "slots_named"]


_FUSED_EVERY = 8
"""Of so many calls of a model, one lets its fused slots be observed."""


class Slot(nn.Module):
    """A place in a model where a function is called.

    It starts with the closed form, or, where the function has none, with a trainable table drawn from `seed`.
    name: what kind of place it is, such as `position`. domain: the inputs that it gets in training.
    """

    def __init__(
        self, name: str, function: Function, domain: Domain | None = None, *, seed: int = 0, **shape: int
    ) -> None:
        super().__init__()
        function.check_shape(**shape)
        if function.slot != name:
            raise InputError(f"{function.name} belongs in slot {function.slot!r}, not in {name!r}.")
        self.name, self.function, self.shape = name, function, shape
        self.domain = function.domain if domain is None else domain
        self.watch: Callable[[Tensor], None] | None = None
        """Called with every input while the slot is observed."""
        closed = "analytic" in function.arms
        self.content: Content = self.analytic() if closed else self.table(keyed_generator(seed, name, "table"))

    def analytic(self) -> Content:
        """The closed form for this slot, folded to a table where the slot's domain is finite."""
        return self.fold(Analytic(self.function, self.shape))

    def table(self, generator: torch.Generator) -> Content:
        """The function's values as a trainable table; raises InputError where the slot's domain is not finite."""
        if not self.domain.integer:
            raise InputError(f"a table needs a finite domain, and {self.function.name} is asked for on the reals.")
        rows = self.function.initial_table(self.domain.points(), generator, **self.shape)
        return TrainableTable(self.function, self.shape, self.domain, rows.float())

    def fold(self, content: Content) -> Content:
        """The content as a table or as knots where that is possible; for contents that don't change."""
        if self.domain.integer:
            return Folded(content, self.domain)
        if FoldedKnots.foldable(content):
            assert isinstance(content, NetContent)
            return FoldedKnots(content)
        return content

    @property
    def fused(self) -> bool:
        """Whether the model may compute this place by its own fused operation: it holds a closed form that has one."""
        content = self.content.content if isinstance(self.content, Folded) else self.content
        return self.function.fused and isinstance(content, Analytic)

    def forward(self, inputs: Tensor, highest: int | None = None) -> Tensor:
        """The function's values.

        highest: the largest of integer inputs that count from the domain's start, where the caller knows it: saves
        looking at the inputs, which on a GPU would wait for it.
        """
        if self.watch is not None:
            self.watch(inputs)
        values: Tensor = self.content(inputs, highest)
        return values

    def added_to(self, state: Tensor, inputs: Tensor, highest: int | None = None) -> Tensor:
        """The function's values of inputs [N] added to every entry of a state [B, N, outputs]; `highest` as above."""
        if self.watch is not None:
            self.watch(inputs)
        values: Tensor = self.content.added_to(state, inputs, highest)
        return values

    @torch.no_grad()
    def drift(self) -> tuple[float, float] | None:
        """Largest and RMS distance of the content from the closed form on the slot's domain; None without one."""
        if "analytic" not in self.function.arms:
            return None
        points = self.function.points(self.domain, **self.shape)
        inputs = points.long() if self.domain.integer else points.to(self.content.dtype_like.dtype)
        values = self.content(inputs.to(self.content.dtype_like.device)).double().cpu()
        distance = values - self.function.analytic(points, **self.shape)
        return distance.abs().max().item(), distance.square().mean().sqrt().item()


def slots_named(model: nn.Module, name: str) -> dict[str, Slot]:
    """The slots of that name by their path in the model; raises InputError where there is none."""
    slots = {path: module for path, module in model.named_modules() if isinstance(module, Slot)}
    found = {path: slot for path, slot in slots.items() if slot.name == name}
    if not found:
        known = ", ".join(sorted({slot.name for slot in slots.values()})) or "none"
        raise InputError(f"the model has no slot {name!r}; its slots are: {known}.")
    return found


@contextmanager
def observed_inputs(model: nn.Module, see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Call `see` with a slot's path and inputs at every call of the model, at every eighth where the slot is fused.

    A slot whose function the model computes by a fused operation is given its inputs for the record alone, which costs
    more than the operation: in every call, an evaluation would take three times as long.
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
        watch()  # where a part of the model is called, not the model
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
    """Watch what each slot is really given: lowest and highest input by the slot's path, filled while it runs."""
    ranges: dict[str, tuple[float, float]] = {}

    def see(path: str, inputs: Tensor) -> None:
        low, high = ranges.get(path, (math.inf, -math.inf))
        least = torch.where(inputs == -math.inf, math.inf, inputs) if inputs.is_floating_point() else inputs
        ranges[path] = (min(low, least.min().item()), max(high, inputs.max().item()))

    with observed_inputs(model, see):
        yield ranges


@contextmanager
def sampled_inputs(model: nn.Module, each: int = 256) -> Iterator[dict[str, Tensor]]:
    """The density of inputs that each slot is really given, for `fit`: [N] by the slot's path, there at the end.

    Of every call at most `each` inputs, evenly spaced; −∞, which stands for what is no part of a row, is left out.
    """
    seen: dict[str, list[Tensor]] = {}
    found: dict[str, Tensor] = {}

    def see(path: str, inputs: Tensor) -> None:
        flat = inputs.reshape(-1)
        flat = flat[flat > -math.inf] if flat.is_floating_point() else flat
        seen.setdefault(path, []).append(flat[:: max(1, math.ceil(len(flat) / each))].clone().cpu())

    with observed_inputs(model, see):
        yield found
    found.update({path: torch.cat(some) for path, some in seen.items()})
