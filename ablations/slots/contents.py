"""Contents: what a slot can hold, such as a closed form, a net in its place, or a table."""

from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import Tensor, nn

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import Domain, Function
from trans4init.ablations.functions.tails import Tails, tails_of
from trans4init.ablations.nets import Net
from trans4init.ablations.nets.base import Pieces
from trans4init.kernels.polyline import chosen, polyline

__all__ = [
    "Analytic",
    "Content",
    "Corrected",
    "ExactGradient",
    "FoldedPolyline",
    "FoldedTable",
    "LeftOut",
    "NetContent",
    "OutsideDomainError",
    "TrainableTable",
    "folded",
]


class OutsideDomainError(Exception):
    """A slot was asked for an input for which its content has no value, such as a position beyond a table."""


class Content(nn.Module):
    """Fills a slot: it maps inputs [...] to the function's values.

    It keeps its parameters, and computes, in float32 at least, whatever the model is rounded to.
    """

    def __init__(self, function: Function, shape: dict[str, int]) -> None:
        super().__init__()
        self.function, self.shape = function, shape
        self.register_buffer("dtype_like", torch.empty(0), persistent=False)
        self.dtype_like: Tensor
        """Empty; it has the dtype and the device of the model."""
        self.register_load_state_dict_post_hook(Content._after_loading)  # type: ignore[no-untyped-call]

    def value(self, inputs: Tensor) -> Tensor:
        """Compute the values for floating-point inputs, in the inputs' dtype."""
        raise NotImplementedError

    def forward(self, inputs: Tensor, highest: int | None = None) -> Tensor:
        """Compute the values; integers are converted to float32, which is exact up to 2^24."""
        return self.rounded(self.value(inputs.to(torch.promote_types(self.dtype_like.dtype, torch.float32))), inputs)

    def rounded(self, values: Tensor, inputs: Tensor) -> Tensor:
        """Round values to the dtype of the model, or of its inputs where that is more exact; biases to float32."""
        dtype = self.dtype_like.dtype
        if inputs.is_floating_point():
            dtype = torch.promote_types(dtype, inputs.dtype)
        if self.function.role in ("bias", "pair-bias", "rotary"):  # what meets scores is added or multiplied exactly
            dtype = torch.promote_types(dtype, torch.float32)
        return values.to(dtype)

    def derive(self) -> None:
        """Compute again what follows from parameters, device or dtype: it is called whenever these change."""

    def adopt(self, like: Tensor) -> None:
        """Take the dtype and the device of a model whose parameters were exchanged, and derive what follows."""
        for content in reversed(list(self.modules())):  # what a content holds comes before it
            if isinstance(content, Content):
                content.dtype_like = torch.empty(0, dtype=like.dtype, device=like.device)
                content.derive()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Content":
        """Move the content with its model, but round none of its parameters to 16 bits."""
        like = fn(self.dtype_like)

        def exact(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if not moved.is_floating_point() or torch.finfo(moved.dtype).bits >= 32:
                return moved
            return tensor.to(moved.device, torch.promote_types(moved.dtype, torch.float32))

        super()._apply(exact, recurse)  # type: ignore[no-untyped-call]
        if like.is_meta:
            self.dtype_like = like
        else:
            self.adopt(like)
        return self

    def _after_loading(self, *_: object) -> None:
        if not self.dtype_like.is_meta:
            self.derive()

    def added_to(self, state: Tensor, inputs: Tensor, highest: int | None = None) -> Tensor:
        """Add the values of inputs [N], which are [N, outputs], to every entry of a state [B, N, outputs]."""
        values: Tensor = self(inputs, highest)
        return state + values

    def covered(self, domain: Domain, inputs: Tensor, highest: int | None) -> bool:
        """Return whether all (integer) inputs are in the domain; looks at the inputs only where `highest` is None."""
        if highest is not None:
            return highest <= domain.high
        low, high = torch.aminmax(inputs)
        return bool(low >= domain.low) and bool(high <= domain.high)


class Analytic(Content):
    """Computes the closed form of the function."""

    def value(self, inputs: Tensor) -> Tensor:
        """Compute the closed form."""
        return self.function.analytic(inputs, **self.shape)


class LeftOut(Content):
    """Computes what a model has in the function's place when it is left out."""

    def value(self, inputs: Tensor) -> Tensor:
        """Give zeros, ones or the inputs themselves, as `Function.left_out` says."""
        return self.function.left_out(inputs, **self.shape)


class NetContent(Content):
    """Computes a net in the function's place.

    bare: give the net's outputs as they are, even where the net was fitted to the logarithm of the values; for outputs
    that are added to other values. Raises InputError for a net whose inputs or outputs are not the function's.
    """

    def __init__(self, function: Function, shape: dict[str, int], net: Net, *, bare: bool = False) -> None:
        super().__init__(function, shape)
        if net.takes != function.takes:
            raise InputError(f"{net.name} is a net of {net.takes}, {function.name} a function of {function.takes}.")
        if net.outputs != function.outputs(**shape):
            raise InputError(
                f"the net has {net.outputs} outputs and {function.name} needs {function.outputs(**shape)} here."
            )
        self.net, self.bare = net, bare
        self.tails = tails_of(function, net.domain, shape, short=net.pieces() is not None)
        for name in ("tail_kinks", "tail_lines"):
            self.register_buffer(name, None, persistent=False)
        self.tail_kinks: Tensor
        self.tail_lines: Tensor
        self.derive()

    def derive(self) -> None:
        """Put the tails where the model is."""
        if self.tails is not None:
            precision = torch.promote_types(self.dtype_like.dtype, torch.float32)
            self.tail_kinks = self.tails.kinks.to(self.dtype_like.device, precision)
            self.tail_lines = self.tails.lines.to(self.tail_kinks)

    def value(self, inputs: Tensor) -> Tensor:
        """Compute the net's values, in the function's layout: inside its domain, and at its ends plus a tail."""
        rows: Tensor = self.net(inputs if self.tails is None else inputs.clamp(self.tails.low, self.tails.high))
        if self.tails is not None and not self.bare:
            places = self.net.domain.logarithm(inputs) if self.net.domain.log else inputs
            rows = rows + polyline(places, self.tail_kinks, self.tail_lines)[..., None]
        if self.function.log_values and not self.bare:
            rows = rows.exp()
        return self.function.arrange(rows)

    def pieces(self) -> Pieces | None:
        """Return the lines that the net and its tails are, in the function's own input and value; None for others."""
        if not self.function.elementwise or self.function.log_values or self.bare:
            return None
        pieces = self.net.pieces()
        return pieces if pieces is None or self.tails is None else _with_tails(pieces, self.tails)

    def added_to(self, state: Tensor, inputs: Tensor, highest: int | None = None) -> Tensor:
        """Add the values in one pass over the state, where the net can do that."""
        if self.function.role != "added" or self.function.log_values:
            return super().added_to(state, inputs, highest)
        return self.net.added_to(state, inputs.to(torch.promote_types(self.dtype_like.dtype, torch.float32)))


def _with_tails(pieces: Pieces, tails: Tails) -> Pieces:
    """Join the lines of a net inside its domain with the tails outside."""
    kinks = pieces.kinks[(pieces.kinks > tails.low) & (pieces.kinks < tails.high)]
    kinks = torch.cat([kinks, tails.kinks.to(kinks.device)]).unique()  # type: ignore[no-untyped-call]
    inside = torch.cat([kinks[:1] - 1, (kinks[1:] + kinks[:-1]) / 2, kinks[-1:] + 1])  # a place on each line
    at = inside.clamp(tails.low, tails.high)
    piece = torch.bucketize(at, pieces.kinks)
    slopes = torch.where((at == inside)[:, None], pieces.slopes[piece], 0.0)
    intercepts = torch.where((at == inside)[:, None], pieces.intercepts[piece], pieces.value(at))
    added = tails.lines.to(kinks.device)[:, torch.bucketize(inside, tails.kinks.to(kinks.device))]
    return Pieces(kinks, slopes + added[0][:, None], intercepts + added[1][:, None])


class ExactGradient(Content):
    """Computes the values of another content with the derivative of the closed form."""

    def __init__(self, content: Content) -> None:
        super().__init__(content.function, content.shape)
        self.content = content

    def value(self, inputs: Tensor) -> Tensor:
        """Give the content's values [...] for inputs [...]; what is added to them is 0, and has the gradient."""
        with torch.no_grad():
            values: Tensor = self.content.value(inputs)
        closed = self.function.analytic(inputs, **self.shape)
        return values + (closed - closed.detach())


class Corrected(Content):
    """Computes the closed form plus a net."""

    def __init__(self, function: Function, shape: dict[str, int], base: Content, correction: NetContent) -> None:
        super().__init__(function, shape)
        self.base, self.correction = base, correction

    def forward(self, inputs: Tensor, highest: int | None = None) -> Tensor:
        """Compute the sum."""
        values: Tensor = self.base(inputs, highest) + self.correction(inputs, highest)
        return values


class TrainableTable(Content):
    """Reads a trained table [rows, outputs]: a row for each integer of a finite domain, or a group of them."""

    def __init__(self, function: Function, shape: dict[str, int], domain: Domain, rows: Tensor) -> None:
        super().__init__(function, shape)
        self.domain = domain
        self.table = nn.Parameter(rows)

    def forward(self, inputs: Tensor, highest: int | None = None) -> Tensor:
        """Look up the rows of the inputs; raises OutsideDomainError for an input that the table has no row for."""
        if not self.function.open_ended() and not self.covered(self.domain, inputs, highest):
            raise OutsideDomainError(f"the table covers {self.domain} only")
        rows = self.table[self.function.table_index(inputs, self.domain, **self.shape)]
        return self.rounded(self.function.arrange(rows), inputs)


def folded(content: Content, domain: Domain) -> "FoldedTable | FoldedPolyline | None":
    """Fold a content that doesn't change: to a table over a finite domain, to a polyline where it is one, else None."""
    if domain.integer:
        return FoldedTable(content, domain)
    return FoldedPolyline(content) if _is_polyline(content) else None


def _is_polyline(content: Content) -> TypeGuard[NetContent]:
    """Return whether the content is a net that is piecewise linear in the function's own input and value."""
    return isinstance(content, NetContent) and content.pieces() is not None


class FoldedTable(Content):
    """Looks up a content that doesn't change in a table over a finite domain; outside it, the content is evaluated.

    The table is not part of a checkpoint: it is computed again whenever weights are loaded.
    """

    def __init__(self, content: Content, domain: Domain) -> None:
        super().__init__(content.function, content.shape)
        self.content, self.domain = content, domain
        self.register_buffer("table", torch.empty(0), persistent=False)
        self.table: Tensor
        self.derive()

    @torch.no_grad()
    def derive(self) -> None:
        """Tabulate the content, [N, outputs]: evaluate it in float64, keep the values as `rounded` has them."""
        points = self.domain.points().to(self.dtype_like.device)
        values = self.function.as_rows(self.content.value(points))
        self.table = self.rounded(values, points.long()).contiguous()

    def forward(self, inputs: Tensor, highest: int | None = None) -> Tensor:
        """Look up rows of the table; evaluate the content where an input is outside of the domain."""
        if not self.covered(self.domain, inputs, highest):
            values: Tensor = self.content(inputs, highest)
            return values
        return self.function.arrange(self.table[inputs - int(self.domain.low)])

    def evaluation(self, inputs: Tensor) -> str:
        """Return what computes the values: a table."""
        return "table"


class FoldedPolyline(Content):
    """Computes a net that is exactly piecewise linear by its kinks and lines, which is exact for every input.

    Like a table, kinks and lines are computed again whenever weights are loaded.
    """

    def __init__(self, content: NetContent) -> None:
        super().__init__(content.function, content.shape)
        self.content = content
        for name in ("kinks", "lines"):
            self.register_buffer(name, torch.empty(0), persistent=False)
        self.kinks: Tensor
        self.lines: Tensor
        self.derive()

    @torch.no_grad()
    def derive(self) -> None:
        """Take the net apart: kinks [K − 1], and slope and intercept of each of the K lines [2, K]."""
        pieces = self.content.pieces()
        assert pieces is not None  # `folded` checks this
        precision = torch.promote_types(self.dtype_like.dtype, torch.float32)
        self.kinks = pieces.kinks.to(self.dtype_like.device, precision)
        self.lines = torch.stack([pieces.slopes[:, 0], pieces.intercepts[:, 0]]).to(self.kinks)
        self.value(self.kinks.new_zeros(1))  # compile now what has to be compiled, not in a step that is timed

    def forward(self, inputs: Tensor, highest: int | None = None) -> Tensor:
        """Compute the values; in one pass where a GPU's inputs have the model's dtype: float32 is used anyway."""
        alike = inputs.dtype == self.dtype_like.dtype and not inputs.is_cpu
        return self.value(inputs) if alike else super().forward(inputs, highest)

    def value(self, inputs: Tensor) -> Tensor:
        """Map [...] to [...]."""
        return polyline(inputs, self.kinks, self.lines)

    def evaluation(self, inputs: Tensor) -> str:
        """Return which implementation of `kernels.polyline` computes such inputs on this machine."""
        return chosen(inputs, self.lines.shape[1])
