"""Tell how a call is differentiated or mapped, since not every implementation has every derivative."""

import torch
from torch.autograd import forward_ad

__all__ = ["forward_mode", "in_transformation"]


def forward_mode() -> bool:
    """Say whether forward-mode derivatives are being taken, of any tensor.

    Which tensors have a tangent can't be asked: inside `torch.func.vmap` PyTorch has no answer, inside `grad` a wrong
    one.
    """
    return forward_ad._current_level >= 0


def in_transformation() -> bool:
    """Say whether the call is inside a transformation of `torch.func`, such as vmap, grad or jvp.

    A function that is being compiled is traced as if it were not: what is traced is differentiated afterwards.
    """
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()
