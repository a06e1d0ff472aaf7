"""A result is compared with the specification by its relative RMS error."""

import math

import pytest
import torch

from trans4init.bench.suites.accuracy import rms_complaint

EXPECTED = torch.tensor([3.0, -4.0], dtype=torch.float64)


@pytest.mark.parametrize(("off", "wrong"), [(0.049, False), (0.051, True), (math.nan, True)])
def test_an_error_is_a_complaint_from_the_allowed_share_of_the_expected_rms_on(off, wrong):
    """An error of `off` in one of two values is off / √2 in RMS, and 3.54 is the RMS expected."""
    result = EXPECTED.float() + torch.tensor([5 * off, 0.0])
    complaint = rms_complaint(result, EXPECTED, 0.05, "dq")
    assert bool(complaint) == wrong
    assert not wrong or complaint == f"relative RMS error of dq {abs(off):.1e}, at most 5e-02 allowed"


def test_without_a_name_the_complaint_has_none():
    assert rms_complaint(2 * EXPECTED, EXPECTED, 0.05) == "relative RMS error 1.0e+00, at most 5e-02 allowed"
