"""The specification of a polyline: find the line of each number, and evaluate it."""

import torch
from torch import Tensor

__all__ = ["reference_polyline"]


def reference_polyline(inputs: Tensor, kinks: Tensor, lines: Tensor) -> Tensor:
    """K lines: inputs [...], kinks [K − 1] ascending, slopes and intercepts lines [2, K]; to [...], of their dtype.

    Computed in float32 at least. Differentiable in the inputs; the slope at a kink is that of the line to its left.
    """
    exact = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
    piece = torch.bucketize(exact.detach(), kinks.to(exact.dtype))
    slopes, intercepts = lines.to(exact.dtype)
    return torch.addcmul(intercepts[piece], slopes[piece], exact).to(inputs.dtype)
