"""Contents: what can be in a slot, from a closed form and a net in its place to a table."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import Domain, Function
from trans4init.ablations.nets import Net
from trans4init.kernels.polyline import chosen, polyline

__all__ = [
    "Analytic",
    "Content",
    "Corrected",
    "ExactGradient",
    "Folded",
    "FoldedKnots",
    "LeftOut",
    "NetContent",
    "OutsideDomainError",
    "TrainableTable",
]


class OutsideDomainError(Exception):
    """A slot was asked for an input for which its content has no value, such as a position beyond a table."""


class Content(nn.Module):
    """What is in a slot: from inputs [...] to the function's values, in the dtype of the model."""

    def __init__(self, function: Function, shape: dict[str, int]) -> None:
        super().__init__()
        self.function, self.shape = function, shape
        self.register_buffer("dtype_like", torch.empty(0), persistent=False)
        self.dtype_like: Tensor

    def value(self, inputs: Tensor) -> Tensor:
        """The values for floating-point inputs, in their dtype."""
        raise NotImplementedError

    def forward(self, inputs: Tensor, highest: int | None = None) -> Tensor:
        """The values in the model's dtype; integers are taken as float32, which holds positions to 2^24."""
        exact = inputs.to(torch.promote_types(self.dtype_like.dtype, torch.float32))
        return self.value(exact).to(self.dtype_like.dtype)

    def added_to(self, state: Tensor, inputs: Tensor, highest: int | None = None) -> Tensor:
        """The values of inputs [N], [N, outputs], added to every entry of a state [B, N, outputs]."""
        values: Tensor = self(inputs, highest)
        return state + values

    def covered(self, domain: Domain, inputs: Tensor, highest: int | None) -> bool:
        """Whether all (integer) inputs are in the domain; looks at them only where `highest` is not known."""
        if highest is not None:
            return highest <= domain.high
        low, high = torch.aminmax(inputs)
        return bool(low >= domain.low) and bool(high <= domain.high)


class Analytic(Content):
    """The closed form."""

    def value(self, inputs: Tensor) -> Tensor:
        """The function itself."""
        return self.function.analytic(inputs, **self.shape)


class LeftOut(Content):
    """What is left when the function is left out."""

    def value(self, inputs: Tensor) -> Tensor:
        """Zeros or the identity, as the function says."""
        return self.function.left_out(inputs, **self.shape)


class NetContent(Content):
    """A net in the function's place. bare: as the net gives them, for values that are added to others."""

    def __init__(self, function: Function, shape: dict[str, int], net: Net, *, bare: bool = False) -> None:
        super().__init__(function, shape)
        if net.takes != function.takes:
            raise InputError(f"{net.name} is a net of {net.takes}, {function.name} a function of {function.takes}.")
        if net.outputs != function.outputs(**shape):
            raise InputError(
                f"the net has {net.outputs} outputs and {function.name} needs {function.outputs(**shape)} here."
            )
        self.net, self.bare = net, bare

    def value(self, inputs: Tensor) -> Tensor:
        """The net's values, in the function's layout."""
        rows: Tensor = self.net(inputs)
        if self.function.log_values and not self.bare:
            rows = rows.exp()
        return self.function.arrange(rows)

    def added_to(self, state: Tensor, inputs: Tensor, highest: int | None = None) -> Tensor:
        """In one pass over the state, where the net can do that."""
        if self.function.role != "added" or self.function.log_values:
            return super().added_to(state, inputs, highest)
        return self.net.added_to(state, inputs.to(torch.promote_types(self.dtype_like.dtype, torch.float32)))


class ExactGradient(Content):
    """A fitted net's value with the closed form's derivative: is it the value or the slope that hurts?"""

    def __init__(self, content: Content) -> None:
        super().__init__(content.function, content.shape)
        self.content = content

    def value(self, inputs: Tensor) -> Tensor:
        """[...] to [...]."""
        with torch.no_grad():
            values: Tensor = self.content(inputs)
        result: Tensor = _Substituted.apply(inputs, values, self.function, self.shape)  # type: ignore[no-untyped-call]
        return result


class _Substituted(torch.autograd.Function):
    """Values that were computed elsewhere, with the derivative of a closed form."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, values: Tensor, function: Function, shape: dict[str, int]) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.function, ctx.shape = function, shape
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        [inputs] = ctx.saved_tensors
        return ctx.function.pulled_back(inputs, gradients[0], **ctx.shape), None, None, None


class Corrected(Content):
    """The closed form plus a net."""

    def __init__(self, function: Function, shape: dict[str, int], base: Content, correction: NetContent) -> None:
        super().__init__(function, shape)
        self.base, self.correction = base, correction

    def forward(self, inputs: Tensor, highest: int | None = None) -> Tensor:
        """The sum."""
        values: Tensor = self.base(inputs, highest) + self.correction(inputs, highest)
        return values


class TrainableTable(Content):
    """One trained row of values for each integer of a finite domain, [N, outputs], or for each of its groups."""

    def __init__(self, function: Function, shape: dict[str, int], domain: Domain, rows: Tensor) -> None:
        super().__init__(function, shape)
        self.domain = domain
        self.table = nn.Parameter(rows)

    def forward(self, inputs: Tensor, highest: int | None = None) -> Tensor:
        """The rows of the inputs; raises OutsideDomainError beyond a table that has an end."""
        if not self.function.open_ended() and not self.covered(self.domain, inputs, highest):
            raise OutsideDomainError(f"the table covers {self.domain} only")
        return self.function.arrange(self.table[self.function.table_index(inputs, self.domain, **self.shape)])


class Folded(Content):
    """A content that doesn't change, tabulated once over a finite domain; beyond it, the content itself.

    The table is not part of a checkpoint: it is made again whenever weights are loaded.
    """

    def __init__(self, content: Content, domain: Domain) -> None:
        super().__init__(content.function, content.shape)
        self.content, self.domain = content, domain
        self.register_buffer("table", torch.empty(0), persistent=False)
        self.table: Tensor
        self.register_load_state_dict_post_hook(lambda module, _: module.fold())  # type: ignore[no-untyped-call]
        self.fold()

    @torch.no_grad()
    def fold(self) -> None:
        """Tabulate the content, [N, outputs]; evaluated in float64, kept in the model's dtype."""
        points = self.domain.points().to(self.dtype_like.device)
        values = self.function.as_rows(self.content.value(points))
        self.table = values.to(self.dtype_like.dtype).contiguous()

    def forward(self, inputs: Tensor, highest: int | None = None) -> Tensor:
        """Rows of the table, or the content's own values where an input is outside."""
        if not self.covered(self.domain, inputs, highest):
            values: Tensor = self.content(inputs, highest)
            return values
        return self.function.arrange(self.table[inputs - int(self.domain.low)])


class FoldedKnots(Content):
    """A net that is exactly piecewise linear, as the knots and lines that it is: right everywhere, not in a domain.

    Like a table, the knots are made again whenever weights are loaded.
    """

    def __init__(self, content: NetContent) -> None:
        super().__init__(content.function, content.shape)
        self.content = content
        for name in ("knots", "lines"):
            self.register_buffer(name, torch.empty(0), persistent=False)
        self.knots: Tensor
        self.lines: Tensor
        self.register_load_state_dict_post_hook(lambda module, _: module.fold())  # type: ignore[no-untyped-call]
        self.fold()

    @torch.no_grad()
    def fold(self) -> None:
        """Take the net apart: knots [K − 1], and slope and intercept of each of the K lines [2, K]."""
        pieces = self.content.net.pieces()
        assert pieces is not None  # `foldable` has seen to it
        precision = torch.promote_types(self.dtype_like.dtype, torch.float32)
        self.knots = pieces.knots.to(self.dtype_like.device, precision)
        self.lines = torch.stack([pieces.slopes[:, 0], pieces.intercepts[:, 0]]).to(self.knots)
        self.value(self.knots.new_zeros(1))  # what has to be compiled is compiled now, not in a step that is timed

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FoldedKnots":
        """Where the net is moved or rounded, take it apart again: rounded lines would not meet."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if not self.knots.is_meta:
            self.fold()
        return self

    @staticmethod
    def foldable(content: Content) -> bool:
        """Whether the content is a net that is piecewise linear in the function's own input and value."""
        if not isinstance(content, NetContent) or not content.function.elementwise or content.function.log_values:
            return False
        return content.net.pieces() is not None

    def forward(self, inputs: Tensor, highest: int | None = None) -> Tensor:
        """In one pass where the inputs have the model's dtype already: it is computed in float32 at least anyway."""
        alike = inputs.dtype == self.dtype_like.dtype and not inputs.is_cpu
        return self.value(inputs) if alike else super().forward(inputs, highest)

    def value(self, inputs: Tensor) -> Tensor:
        """[...] to [...]."""
        return polyline(inputs, self.knots, self.lines)

    def evaluation(self, inputs: Tensor) -> str:
        """Which code computes it for such inputs on this machine, in the words of `polyline`."""
        return chosen(inputs, self.lines.shape[1])
