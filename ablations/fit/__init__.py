"""Fits: a net is trained on a function alone, its errors are measured, and checkpoint and record are saved."""

from trans4init.ablations.fit.fidelity import Fidelity, RegionErrors
from trans4init.ablations.fit.fitted import Fitted, load_fitted
from trans4init.ablations.fit.jobs import Wanted, fit, fit_many, refinement_budget
from trans4init.ablations.fit.optimise import FitDivergedError, OnStep

__all__ = [
    "Fidelity",
    "FitDivergedError",
    "Fitted",
    "OnStep",
    "RegionErrors",
    "Wanted",
    "fit",
    "fit_many",
    "load_fitted",
    "refinement_budget",
]
