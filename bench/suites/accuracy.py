"""Compare an implementation's result with the specification."""

from torch import Tensor

__all__ = ["rms_complaint"]


def rms_complaint(result: Tensor, expected: Tensor, allowed: float, name: str = "") -> str:
    """Return a complaint if the RMS error over the RMS of `expected` is above `allowed` or NaN; empty if it isn't."""
    error = ((result.to(expected) - expected).square().mean().sqrt() / expected.square().mean().sqrt()).item()
    if error <= allowed:
        return ""
    return f"relative RMS error{f' of {name}' if name else ''} {error:.1e}, at most {allowed:.0e} allowed"
