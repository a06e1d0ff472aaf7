"""Suites name `impl="compile"` as missing where torch.compile fails, and measure the other implementations."""

import pytest
import torch

from trans4init.bench.suite import MissingError
from trans4init.bench.suites import bench_functions, bench_positional_mlp
from trans4init.kernels.availability import UnavailableError


@pytest.mark.parametrize(
    ("module", "operator", "called", "missing", "measured"),
    [
        (bench_functions, "gelu", "polyline", "net, folded: compile", "net, folded: sum"),
        (bench_positional_mlp, bench_positional_mlp.ADDED, "positional_mlp", "compile", "bmm"),
    ],
)
def test_a_suite_names_compile_as_missing_where_torch_compile_fails(
    module, operator, called, missing, measured, monkeypatch
):
    function = getattr(module, called)

    def failing(*arguments, impl, **options):
        if impl == "compile":
            raise UnavailableError("impl 'compile' can't be used on this machine.")
        return function(*arguments, impl=impl, **options)

    monkeypatch.setattr(module, called, failing)
    case = next(case for case in module.SUITE.cases(quick=False) if case.operator == operator)
    prepare = {each.name: each.prepare for each in module.SUITE.implementations(case)}
    inputs = module.SUITE.inputs(case)
    with pytest.raises(MissingError, match=r"^impl 'compile' can't be used on this machine\.$"):
        prepare[missing](inputs)
    assert isinstance(prepare[measured](inputs)(), torch.Tensor)
