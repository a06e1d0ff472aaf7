"""Specify a polyline in eager PyTorch: find the line of each input, and evaluate it."""

import torch
from torch import Tensor

__all__ = ["reference_polyline"]


def reference_polyline(inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    """Return the value of K lines at each input: inputs [...], kinks [K − 1] ascending, lines [2, K] -> [...].

    lines: slopes and intercepts. Computed in float32 at least, returned in the inputs' dtype. Differentiable in the
    inputs; the slope at a kink is that of the line to its left.
    """
    exact = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    piece = torch.bucketize(exact.detach(), kinks.to(exact.dtype))
    slopes, intercepts = lines.to(exact.dtype)
    return torch.addcmul(intercepts[piece], slopes[piece], exact).to(inputs.dtype)
