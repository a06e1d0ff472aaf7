"""Nets of pieces, of one number: lines between trained kinks, and B-splines.

B is any number of inputs, K the number of pieces, O the outputs.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trans4init.ablations.functions import Domain
from trans4init.ablations.nets.base import NETS, Net, NetSize, Pieces, Placed
from trans4init.ablations.nets.best_polyline import best_polyline
from trans4init.ablations.nets.best_relu import curvature_points, resampled
from trans4init.ablations.settings.numbers import Count

__all__ = ["PiecewiseLinear", "Spline"]

_NARROWEST = 1e-9
"""The smallest width of a piece, as a fraction of half the domain: two kinks on one place make no division by 0."""

_POINTS_PER_PIECE = 32
"""A net of many pieces is fitted at this many points for each: of fewer its error between them would be larger."""

_STIFFNESS = 1e-7
"""Weight of a change of slope beside the squared errors of a least-squares fit."""


class PiecesSize(NetSize):
    """Holds the number of pieces."""

    pieces: Count = 16
    """Number of lines, one between each two kinks and one beyond each end."""


@NETS.register
class PiecewiseLinear(Net):
    """Draws lines between K − 1 trained kinks, which all outputs share; the outer lines go on outside the domain."""

    name = "piecewise-linear"
    source = "Yu et al. 2022, NN-LUT: Neural Approximation of Non-Linear Operations for Efficient Transformer Inference"
    Size = PiecesSize
    folds = "to a table over finite positions; on the reals exactly to the kinks and lines that it is"
    atlas_sizes = tuple({"pieces": pieces} for pieces in (4, 8, 16, 32))
    atlas_position_sizes = ({"pieces": 32}, {"pieces": 128})

    def __init__(self, domain: Domain, outputs: int, size: PiecesSize) -> None:
        super().__init__(domain, outputs, size)
        self.kinks = nn.Parameter(torch.empty(size.pieces - 1, dtype=torch.float32))
        self.values = nn.Parameter(torch.empty(size.pieces + 1, outputs, dtype=torch.float32))
        self.register_load_state_dict_pre_hook(_rename_knots)  # type: ignore[no-untyped-call]

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [...] to [..., O]."""
        place = self.domain.coordinate(inputs)
        corners = self._corners(inputs.dtype)
        piece = torch.bucketize(place.detach(), corners[1:-1].detach())
        left, right = corners[piece], corners[piece + 1]
        share = ((place - left) / (right - left).clamp_min(_NARROWEST))[..., None]
        values = self.values.to(inputs.dtype)
        result: Tensor = values[piece] + share * (values[piece + 1] - values[piece])
        return result

    def _corners(self, dtype: torch.dtype) -> Tensor:
        """Return the ends of the pieces in the domain's coordinate, ascending from −1 to 1, [K + 1]."""
        kinks = self.kinks.to(dtype).clamp(-1, 1).sort().values
        return torch.cat([kinks.new_tensor([-1.0]), kinks, kinks.new_tensor([1.0])])

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw kinks uniformly over the domain, and normal values."""
        self.kinks.uniform_(-1, 1, generator=generator)
        self.kinks.copy_(self.kinks.sort().values)
        self.values.normal_(generator=generator)

    @torch.no_grad()
    def zero_output(self) -> None:
        """Zero the values at the corners."""
        self.values.zero_()

    @torch.no_grad()
    def solve_output(self, inputs: Tensor, targets: Tensor) -> None:
        """Solve for the values at the corners by least squares, in float64."""
        place, corners = self.domain.coordinate(inputs.double()), self._corners(torch.float64)
        piece = torch.bucketize(place, corners[1:-1])
        share = (place - corners[piece]) / (corners[piece + 1] - corners[piece]).clamp_min(_NARROWEST)
        design = torch.zeros(len(inputs), len(corners), dtype=torch.float64)
        design.scatter_(1, piece[:, None], 1 - share[:, None]).scatter_(1, piece[:, None] + 1, share[:, None])
        # a small penalty on changes of slope decides values at corners that no input is near
        widths = (corners[1:] - corners[:-1]).clamp_min(_NARROWEST)
        slopes = torch.diff(torch.eye(len(corners), dtype=torch.float64), dim=0) / widths[:, None]
        design = torch.cat([design, _STIFFNESS * torch.diff(slopes, dim=0)])
        rest = torch.zeros(len(design) - len(targets), targets.shape[1], dtype=torch.float64)
        solution = torch.linalg.lstsq(design, torch.cat([targets.double(), rest]), driver="gelsd").solution
        self.values.copy_(solution)

    def points_wanted(self) -> int:
        """Return so many that each piece has several, which its error depends on."""
        return max(super().points_wanted(), _POINTS_PER_PIECE * (len(self.values) - 1))

    @torch.no_grad()
    def place(self, inputs: Tensor, targets: Tensor) -> Placed:
        """Set one output to the smallest largest error; place the kinks of several by their common curvature."""
        if len(inputs) < 4:
            return "no"
        x, y = self.domain.coordinate(inputs).numpy(), targets.numpy()
        if self.outputs == 1:
            pieces = len(self.values) - 1
            count = max(1001, _POINTS_PER_PIECE * pieces)
            at, height = (x, y[:, 0]) if self.domain.integer else resampled(x, y[:, 0], count, pieces)
            best = best_polyline(at, height, pieces)
            missing = len(self.values) - len(best.x)
            corners = np.sort(np.concatenate([best.x, np.linspace(-1, 1, missing + 2)[1:-1]]))
            self.kinks.copy_(torch.from_numpy(corners[1:-1]))
            self.values.copy_(torch.from_numpy(np.interp(corners, best.x, best.y))[:, None])
            return "best"
        spread = np.ptp(y, axis=0)
        bend = np.abs(np.gradient(np.gradient(y / np.where(spread > 0, spread, 1.0), x, axis=0), x, axis=0)).max(axis=1)
        twice = np.concatenate([[0], np.cumsum(np.cumsum(bend) * np.diff(x, prepend=x[0]))])[1:]
        self.kinks.copy_(torch.from_numpy(curvature_points(x, twice, len(self.values))[1:-1]))
        self.solve_output(inputs, targets)
        return "start"

    @torch.no_grad()
    def pieces(self) -> Pieces | None:
        """Return the lines in the net's own input; None over a logarithmic domain."""
        if self.domain.log:
            return None
        middle = (self.domain.high + self.domain.low) / 2
        half = (self.domain.high - self.domain.low) / 2 or 1.0
        corners, values = self._corners(torch.float64), self.values.double()
        slopes = (values[1:] - values[:-1]) / (corners[1:] - corners[:-1]).clamp_min(_NARROWEST)[:, None] / half
        corners = middle + half * corners
        return Pieces(corners[1:-1], slopes, values[:-1] - slopes * corners[:-1, None])

    def flops(self) -> int:
        """Count a bisection over the kinks, one interpolation weight, and the operations of each output."""
        return int(np.ceil(np.log2(max(2, len(self.values) - 1)))) + 5 + 3 * self.outputs


def _rename_knots(net: nn.Module, state: dict[str, Tensor], prefix: str, *rest: object) -> None:
    """Let weights be loaded that were saved when kinks were called knots."""
    if f"{prefix}knots" in state:
        state[f"{prefix}kinks"] = state.pop(f"{prefix}knots")


class SplineSize(NetSize):
    """Holds the number of intervals of the grid."""

    intervals: Count = 32
    """Number of intervals of the grid over the domain."""


@NETS.register
class Spline(Net):
    """Adds cubic B-splines on a uniform grid and a trained multiple of SiLU: an edge of a KAN for each output.

    Outside the domain the splines keep the value that they have at its end.
    """

    name = "spline"
    source = "Liu et al. 2024, KAN: Kolmogorov-Arnold Networks, section 2.2, equations 2.10 to 2.12"
    Size = SplineSize
    atlas_sizes = tuple({"intervals": intervals} for intervals in (4, 16, 64))
    atlas_position_sizes = ({"intervals": 64}, {"intervals": 512})

    def __init__(self, domain: Domain, outputs: int, size: SplineSize) -> None:
        super().__init__(domain, outputs, size)
        self.intervals = size.intervals
        self.coefficients = nn.Parameter(torch.empty(size.intervals + 3, outputs, dtype=torch.float32))
        self.slope = nn.Parameter(torch.empty(outputs, dtype=torch.float32))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [...] to [..., O]."""
        place = self.domain.coordinate(inputs)
        cell, basis = self._basis(place)
        coefficients = self.coefficients.to(inputs.dtype)
        splines = sum(
            (basis[k][..., None] * coefficients[cell + k] for k in range(4)), torch.zeros((), dtype=inputs.dtype)
        )
        result: Tensor = splines + F.silu(place)[..., None] * self.slope.to(inputs.dtype)
        return result

    def _basis(self, place: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the interval of each input, and the four cubic B-splines that are not 0 there."""
        scaled = (place.clamp(-1, 1) + 1) / 2 * self.intervals
        cell = scaled.detach().floor().clamp(0, self.intervals - 1)
        t = scaled - cell
        cubic = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
        return cell.long(), [value / 6 for value in cubic]

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw normal coefficients and slopes."""
        self.coefficients.normal_(generator=generator)
        self.slope.normal_(generator=generator)

    @torch.no_grad()
    def zero_output(self) -> None:
        """Zero coefficients and slopes."""
        self.coefficients.zero_()
        self.slope.zero_()

    @torch.no_grad()
    def solve_output(self, inputs: Tensor, targets: Tensor) -> None:
        """Solve for all parameters by least squares, in float64: the net is linear in them."""
        place = self.domain.coordinate(inputs.double())
        cell, basis = self._basis(place)
        design = torch.zeros(len(inputs), len(self.coefficients) + 1, dtype=torch.float64)
        for k in range(4):
            design.scatter_(1, cell[:, None] + k, basis[k][:, None])
        design[:, -1] = F.silu(place)
        solution = torch.linalg.lstsq(design, targets.double(), driver="gelsd").solution
        self.coefficients.copy_(solution[:-1])
        self.slope.copy_(solution[-1])

    def place(self, inputs: Tensor, targets: Tensor) -> Placed:
        """Set the least-squares optimum, which no training can improve."""
        self.solve_output(inputs, targets)
        return "best"

    def flops(self) -> int:
        """Count about 20 for the basis and SiLU, and 10 per output."""
        return 20 + 10 * self.outputs
