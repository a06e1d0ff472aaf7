"""Register an operator's gradient twice, since `torch.compile` and `torch.func` each look for it in another place.

`torch.compile` follows the gradient that is registered with a `torch.library` operator; `torch.func` follows only that
of an `autograd.Function`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trans4init.kernels.differentiation import forward_mode

__all__ = ["differentiable_operator", "once_differentiable"]


def differentiable_operator(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    remember: Callable[..., None],
    differentiate: Callable[..., tuple[Tensor | None, ...]],
    name: str,
) -> Callable[..., Any]:
    """Return a function that calls the custom operator `forward`, differentiable in eager code, compiled or under vmap.

    forward and backward are custom operators with vmap rules. remember(ctx, inputs, output) saves what the gradient
    needs; differentiate(ctx, *gradients, backward=…) returns the gradients of the inputs, and computes them by calling
    the `backward` that it is given. The result has no second derivative and none in forward mode: asking for one raises
    NotImplementedError, which says so of `name`.
    """

    class Gradient(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*args: Any) -> Any:
            return backward(*args)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, *_: Tensor) -> Any:
            raise NotImplementedError(f"{name} has no second derivative; impl 'reference' has one.")

    class Function(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*args: Any) -> Any:
            return forward(*args)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            remember(ctx, inputs, output)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Any:
            return differentiate(ctx, *gradients, backward=Gradient.apply)

    forward.register_autograd(differentiate, setup_context=remember)  # type: ignore[attr-defined]

    def call(*arguments: Any) -> Any:
        if forward_mode():
            raise NotImplementedError(f"{name} has no derivative in forward mode; impl 'reference' has one.")
        return (forward if torch.compiler.is_compiling() else Function.apply)(*arguments)

    return call


def once_differentiable(result: Tensor, name: str) -> Tensor:
    """Return a result whose gradient raises NotImplementedError, which says so of `name`, if it is to have one itself.

    For functions of PyTorch's that have no second derivative, and would say so in words of their own.
    """
    if torch.compiler.is_compiling() or not result.requires_grad:
        return result
    passed: Tensor = _OnceDifferentiable.apply(result, name)  # type: ignore[no-untyped-call]
    return passed


class _OnceDifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, result: Tensor, name: str) -> Tensor:
        ctx.name = name
        return result.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        if torch.is_grad_enabled():  # the caller asks for a graph of the gradient
            raise NotImplementedError(f"{ctx.name} has no second derivative; impl 'reference' has one.")
        return gradient, None
