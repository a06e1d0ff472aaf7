"""Evaluate piecewise-linear functions of one number, given as kinks and lines: a frozen ReLU net is one."""

from trans4init.kernels.polyline.checks import IMPLEMENTATIONS, Implementation
from trans4init.kernels.polyline.native import native_refusal
from trans4init.kernels.polyline.op import chosen, polyline
from trans4init.kernels.polyline.reference import reference_polyline

__all__ = ["IMPLEMENTATIONS", "Implementation", "chosen", "native_refusal", "polyline", "reference_polyline"]
