"""Measure what a function costs in a slot: its closed form, a net evaluated each time, and the same net folded.

Every function that a fitted net can stand in for is computed forward on the inputs of one pass of a small model. Nets
keep their random start: their cost doesn't depend on their values. A net that folds to a polyline is computed by each
implementation of `kernels.polyline` too; "net, folded" is the one that a slot chooses.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from trans4init.ablations.functions import Domain, Function, get_function, list_functions
from trans4init.ablations.nets import build_net
from trans4init.ablations.slots.contents import Analytic, Content, FoldedPolyline, NetContent
from trans4init.ablations.slots.slot import Slot
from trans4init.bench.replay import test_implementation  # noqa: F401  pytest finds it here
from trans4init.bench.suite import Call, Case, MissingError, Suite
from trans4init.bench.suites.accuracy import rms_complaint
from trans4init.bench.suites.requirements import needs_gpu
from trans4init.kernels.polyline import IMPLEMENTATIONS, Implementation, polyline

_VALUES = 2**18
"""How many inputs an elementwise function gets: 1,024 tokens at an inner width of 256."""
_POSITIONS = 512
"""How many inputs a function of positions or distances gets."""
_QUICK = ("sinusoidal", "gelu")
_TOLERANCE = 1e-5
"""Largest RMS error in float32, over the RMS of the same values in float64."""


@dataclass(frozen=True)
class _Inputs:
    slot: Slot
    net: NetContent
    inputs: Tensor
    expected: dict[str, Tensor]


def _measurable(function: Function) -> bool:
    return (
        function.fittable()
        and not function.fidelity_only
        and function.takes == "numbers"
        and "analytic" in function.arms
    )


def _cases() -> list[Case]:
    cases = []
    for function in map(get_function, list_functions()):
        if _measurable(function):
            count = _POSITIONS if function.domain.integer else _VALUES
            size = "×".join(map(str, (count, *function.default_shape.values())))
            values = count * function.outputs(**function.default_shape)
            cases.append(
                Case(
                    function.name,
                    f"{size} values",
                    function.default_shape | {"inputs": count},
                    flop=float(values),  # at least one for each value
                    bytes=4.0 * values + (8 if function.domain.integer else 4) * count,
                    quick=function.name in _QUICK,
                )
            )
    return cases


def _inputs(case: Case) -> _Inputs:
    function = get_function(case.operator)
    device, shape = "cuda" if torch.cuda.is_available() else "cpu", function.default_shape
    domain = function.domain
    if domain.integer:
        first = int(domain.low)
        domain = Domain(first, first + _POSITIONS - 1, integer=True)
        inputs = domain.points().long()
    else:
        inputs = domain.points(_VALUES)[torch.randperm(_VALUES, generator=torch.Generator().manual_seed(0))].float()
    slot = Slot(function.slot, function, domain, **shape).to(device)
    name, size = ("fourier-mlp", {}) if domain.integer else ("mlp-relu", {"hidden": (15,)})
    net = build_net(name, domain, function.outputs(**shape), **size)
    net.initialise(torch.Generator().manual_seed(0))
    content = NetContent(function, shape, net)
    exact = inputs.double()
    with torch.no_grad():
        expected = {"closed form": function.analytic(exact, **shape), "net": content.value(exact)}
    return _Inputs(slot, content.to(device), inputs.to(device), expected)


def _check(inputs: _Inputs, implementation: str, result: Tensor) -> str:
    expected = inputs.expected["closed form" if implementation.startswith("closed form") else "net"]
    return rms_complaint(result, expected, _TOLERANCE)


SUITE = Suite("functions", _cases, _inputs, _check, baseline="closed form")


@SUITE.implementation("closed form")
def _closed_form(inputs: _Inputs) -> Call:
    return _call(inputs, Analytic(inputs.slot.function, inputs.slot.shape))


@SUITE.implementation("closed form, folded")
def _closed_form_folded(inputs: _Inputs) -> Call:
    return _call(inputs, _folded(inputs, Analytic(inputs.slot.function, inputs.slot.shape)))


@SUITE.implementation("net")
def _net(inputs: _Inputs) -> Call:
    return _call(inputs, inputs.net)


@SUITE.implementation("net, folded")
def _net_folded(inputs: _Inputs) -> Call:
    return _call(inputs, _folded(inputs, inputs.net))


def _declare(impl: Implementation) -> None:
    def prepare(inputs: _Inputs) -> Call:
        if impl == "triton":
            needs_gpu()
        folded = _folded(inputs, inputs.net)
        if not isinstance(folded, FoldedPolyline):
            raise MissingError("doesn't fold to a polyline")
        return _call(inputs, _By(folded, impl))

    SUITE.implementation(f"net, folded: {impl}")(prepare)


class _By(Content):
    """Computes a folded net that is evaluated by a given implementation of `polyline`."""

    def __init__(self, folded: FoldedPolyline, impl: Implementation) -> None:
        super().__init__(folded.function, folded.shape)
        self.folded, self.impl = folded, impl
        try:
            self.value(folded.kinks.new_zeros(1))
        except ValueError as error:
            raise MissingError(str(error)) from error

    def value(self, inputs: Tensor) -> Tensor:
        return polyline(inputs, self.folded.kinks, self.folded.lines, impl=self.impl)


for _impl in IMPLEMENTATIONS[1:]:
    _declare(_impl)


def _folded(inputs: _Inputs, content: Content) -> Content:
    folded = inputs.slot.fold(content)
    if folded is content:
        raise MissingError("can't be folded")
    return folded


def _call(inputs: _Inputs, content: Content) -> Call:
    content = content.to(inputs.inputs.device)
    highest = int(inputs.slot.domain.high) if inputs.slot.domain.integer else None

    def call() -> Tensor:
        with torch.no_grad():
            values: Tensor = content(inputs.inputs, highest)
            return values

    return call
