"""Operators that the compiler and `torch.func` can both follow: each knows the gradient of another kind of function."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["followed"]


def followed(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    remember: Callable[..., None],
    differentiate: Callable[..., tuple[Tensor | None, ...]],
    name: str,
) -> Callable[..., Any]:
    """`forward`, a custom operator that is differentiable through the operator `backward`, for any caller.

    remember(ctx, inputs, output) keeps what the gradient needs; differentiate(ctx, *gradients, backward=…) gives the
    inputs' gradients by what it is told to call `backward`. Both operators have a vmap rule. The compiler follows the
    gradient registered with the operator, here too; `torch.func` only an `autograd.Function`.
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
        return (forward if torch.compiler.is_compiling() else Function.apply)(*arguments)

    return call
