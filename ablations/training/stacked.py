"""Compute several Transformers of one shape as one: their batches side by side, each with its own member's weights.

G members, B batch of one member, L length, W width. A stacked model's batch is [G · B, …]: the rows of member 0 first.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trans4init.ablations.errors import InputError
from trans4init.ablations.slots.contents import Content
from trans4init.ablations.slots.slot import Slot
from trans4init.ablations.transformer import Transformer
from trans4init.ablations.transformer.attention import Attention
from trans4init.ablations.transformer.forward_pass import ForwardPass
from trans4init.ablations.transformer.kv_cache import KeyValueCache
from trans4init.ablations.transformer.normalization import Normalization
from trans4init.ablations.transformer.output import TokenOutput
from trans4init.ablations.transformer.positions import PositionValues
from trans4init.ablations.transformer.stack import Stack
from trans4init.kernels.attention import RelativeBias

__all__ = ["NotStackableError", "Stacked", "stacked"]

_BY_ROW = ("activation", "softmax", "softmax-reciprocal", "normalization", "head-mixing")
"""Slots whose inputs begin with the batch, so that each member's part of them can be told."""


class NotStackableError(InputError):
    """Raised where models can't be computed as one. The message says why."""


class _Positions(Stack):
    """Gives each member its own positional values, where they differ."""

    members: list[Stack]
    batch = 0

    def run(self, state: Tensor, **options: Any) -> Tensor:
        """Map embedded tokens [G · B, L, W] to as many states."""
        self.batch = len(state) // len(self.members)
        return super().run(state, **options)

    def _positions(self, length: int, device: torch.device, cache: KeyValueCache | None) -> PositionValues:
        if not isinstance(self.position.content, _MembersContent):
            return super()._positions(length, device, cache)
        values = [member._positions(length, device, cache) for member in self.members]
        return _side_by_side(values, self.batch, length)


class Stacked(Transformer, _Positions):
    """Computes G Transformers as one: tokens [G · B, L] to logits [G · B, …]. Made by `stacked`.

    Its parameters are [G, …], with the names of a member's. What a slot holds stays the members' own.
    """

    members: list[Transformer]  # type: ignore[assignment]

    def forward(self, *inputs: Tensor, once_per_token: bool = False, **options: Any) -> Tensor:
        """Compute the logits as a member does, without its shortcut for batches of few different tokens."""
        return super().forward(*inputs, **options)


class _Encoder(_Positions):
    """Is the encoder of a stacked encoder-decoder."""


def stacked(models: Sequence[Transformer]) -> Stacked:
    """Return the models as one. Its parameters are new: copies of the models' own, member by member.

    Raises NotStackableError for models that differ in more than values, and for those that draw random numbers while
    they are trained, since members would draw each other's.
    """
    first = models[0]
    _check_alike(models)
    made = copy.deepcopy(first)
    sources = [dict(model.named_modules()) for model in models]
    for path, module in list(made.named_modules()):
        of_members = [modules[path] for modules in sources]
        kind = _KINDS.get(type(module))
        if kind is not None:
            module.__class__ = kind
            _stack_parameters(module, of_members)
        elif isinstance(module, Slot):
            _check_own(of_members)
            module.content = _of_members(of_members)  # type: ignore[assignment]
            module.numbers = nn.ParameterDict()  # those of the members are used
        elif any(True for _ in module.parameters(recurse=False)) and not _is_in_slot(path):
            raise NotStackableError(f"{type(module).__name__} isn't written for members")
        if isinstance(module, _Positions):
            module.__dict__["members"] = of_members  # beside torch's book: they are no parts of the stacked model
    return cast(Stacked, made)


def _is_in_slot(path: str) -> bool:
    """Return whether a module is a part of what a slot holds, which stays its member's own."""
    return not {"content", "numbers"}.isdisjoint(path.split("."))


def _check_own(slots: Sequence[Slot]) -> None:
    """Raise NotStackableError for a user's own classes: they may draw random numbers, or hold more than tensors."""
    parts = [part for slot in slots for part in (slot.function, *slot.content.modules())]
    if foreign := [type(part) for part in parts if not type(part).__module__.startswith(("trans4init.", "torch."))]:
        raise NotStackableError(f"{foreign[0].__name__} isn't one of the project's own")


def _check_alike(models: Sequence[Transformer]) -> None:
    config = models[0].config
    shapes = [{name: value.shape for name, value in model.named_parameters()} for model in models]
    if any(model.config != config for model in models) or any(other != shapes[0] for other in shapes):
        raise NotStackableError("the models have other sizes, or hold other contents")
    if any((config.dropout, config.attention_dropout, config.embedding_dropout, config.classifier_dropout)):
        raise NotStackableError("dropout draws random numbers, which members can't share")
    if config.randomised_positions:
        raise NotStackableError("randomised positions are drawn, and members can't share them")
    if config.kind == "image":
        raise NotStackableError("images are cut into patches, which isn't written for members")


def _stack_parameters(module: nn.Module, of_members: Sequence[nn.Module]) -> None:
    """Give a module its members' own parameters, [G, …]; those of the modules in it are left to these."""
    for name in dict(module.named_parameters(recurse=False)):
        own = [member.get_parameter(name) for member in of_members]
        setattr(module, name, nn.Parameter(torch.stack([value.detach() for value in own]), own[0].requires_grad))


class _Linear(nn.Linear):
    """Maps [G · B, …, in] to [G · B, …, out] by weights [G, out, in] and biases [G, out]."""

    def forward(self, state: Tensor) -> Tensor:
        members, outputs, inputs = self.weight.shape
        rows = state.reshape(members, -1, inputs)
        weight, bias = self.weight.mT, self._parameters["bias"]
        made = torch.bmm(rows, weight) if bias is None else torch.baddbmm(bias[:, None], rows, weight)
        return made.view(*state.shape[:-1], outputs)


class _Embedding(nn.Embedding):
    """Looks tokens [G · B, L] up in tables [G, V, W]."""

    def forward(self, tokens: Tensor) -> Tensor:
        members, count, width = self.weight.shape
        first = torch.arange(0, members * count, count, device=tokens.device)
        places = tokens.reshape(members, -1) + first[:, None]
        return F.embedding(places.view_as(tokens), self.weight.reshape(-1, width))


class _Normalization(Normalization):
    """Normalises [G · B, …, W]; gains, biases, factors and shifts are the members' own."""

    def forward(self, state: Tensor) -> Tensor:
        members = self.weight.shape[0]
        rows = state.view(members, -1, state.shape[-1])
        gain, bias = self.weight[:, None], None if self.bias is None else self.bias[:, None]
        if self.slot.fused:
            if self.role == "centred-statistic":
                normalised = F.layer_norm(rows, self.normalized_shape, eps=self.eps)
            else:
                normalised = F.rms_norm(rows, self.normalized_shape, eps=self.eps)
            result = normalised * gain if bias is None else torch.addcmul(bias, normalised, gain)
            return result.view_as(state)
        exact = rows.to(torch.promote_types(state.dtype, torch.float32))
        if self.factor is None:
            centred = exact - exact.mean(dim=-1, keepdim=True) if self.role == "centred-statistic" else exact
            normalised = centred * self._by_slot(self._statistic(exact))
        else:
            scaled = self.factor[:, None] * exact
            normalised = self.slot(scaled if self.shift is None else scaled + self.shift[:, None])
        result = normalised * gain if bias is None else torch.addcmul(bias, normalised, gain)
        return result.to(state.dtype).view_as(state)


class _Attention(Attention):
    """Attends as a single model does; the last row alone is cut out of all of them."""

    def _project(self, state: Tensor, forward_pass: ForwardPass, *, last_only: bool) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super()._project(state, forward_pass, last_only=False)
        return (q[:, -1:] if last_only else q), k, v


class _TokenOutput(TokenOutput):
    """Computes logits [G · B, L, V] by matrices [G, V, W]."""

    def forward(self, state: Tensor, embedding: Tensor) -> Tensor:
        if self.transforms:
            state = self.norm(self.activation(self.transform(state)))
        weight = embedding if self.tied else self.weight
        rows = state.reshape(weight.shape[0], -1, weight.shape[-1])
        made = torch.bmm(rows, weight.mT)
        if self.transforms:
            made = made + self.bias[:, None]
        return made.view(*state.shape[:-1], -1)


class _AddedByParts:
    """Adds each member's positions to its part of a state [G · B, L, W]."""

    def __init__(self, adders: Sequence[Callable[[Tensor], Tensor]]) -> None:
        self._adders = adders

    def __call__(self, state: Tensor) -> Tensor:
        parts = state.chunk(len(self._adders))
        return torch.cat([add(part) for add, part in zip(self._adders, parts, strict=True)])


def _side_by_side(values: Sequence[PositionValues], batch: int, length: int) -> PositionValues:
    """Return the members' positional values as those of one batch, in which each member has `batch` rows."""
    adders = [value.added for value in values if value.added is not None]
    if adders:
        return PositionValues(added=_AddedByParts(adders))
    rotations = [value.rotation for value in values if value.rotation is not None]
    if rotations:  # [L, 2P] each
        return PositionValues(rotation=torch.stack(rotations).repeat_interleave(batch, dim=0)[:, None])
    biases = [
        value.bias.dense(length, length) if isinstance(value.bias, RelativeBias) else value.bias
        for value in values
        if value.bias is not None
    ]
    return PositionValues(bias=torch.stack(biases).repeat_interleave(batch, dim=0))


class _MembersContent(nn.Module):
    """Computes each member's part of the inputs [G · B, …] by the content that its own slot holds."""

    def __init__(self, contents: Sequence[Content]) -> None:
        super().__init__()
        self._contents = list(contents)  # not as modules: their parameters are the members'

    def forward(self, inputs: Tensor, highest: int | None = None) -> Tensor:
        parts = inputs.chunk(len(self._contents))
        return torch.cat([content(part, highest) for content, part in zip(self._contents, parts, strict=True)])


def _of_members(slots: Sequence[Slot]) -> nn.Module:
    """Return what a stacked slot holds: the first member's content, if all of them hold the same and nothing moves."""
    first, contents = slots[0], [slot.content for slot in slots]
    moves = any(parameter.requires_grad for parameter in first.parameters())
    if not moves and all(_same_values(content, first.content) for content in contents[1:]):
        return first.content
    if first.name not in (*_BY_ROW, "position"):
        raise NotStackableError(f"what slot {first.name!r} holds differs by member, and its inputs have no batch")
    return _MembersContent(contents)


def _same_values(content: Content, other: Content) -> bool:
    """Return whether two contents hold the same, bit for bit."""
    mine, theirs = ({**dict(of.named_parameters()), **dict(of.named_buffers())} for of in (content, other))
    return mine.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in mine.items())


_KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: _Linear,
    nn.Embedding: _Embedding,
    Normalization: _Normalization,
    Attention: _Attention,
    TokenOutput: _TokenOutput,
    Transformer: Stacked,
    Stack: _Encoder,
}
