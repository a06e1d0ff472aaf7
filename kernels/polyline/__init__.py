"""Piecewise-linear functions of one number, as knots and lines: what a frozen ReLU net is."""

from trans4init.kernels.polyline.native import native_refusal
from trans4init.kernels.polyline.op import IMPLEMENTATIONS, Implementation, chosen, polyline
from trans4init.kernels.polyline.reference import reference_polyline

__all__ = ["IMPLEMENTATIONS", "Implementation", "chosen", "native_refusal", "polyline", "reference_polyline"]
