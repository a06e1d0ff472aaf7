"""Relative positional encodings: a bias on the score of query i and key j, one per head H, from the distance i − j.

A model makes a table of a bias that depends on i − j alone (role `bias`). FIRE with its normaliser from the query
depends on both positions (role `pair-bias`), and is evaluated for every pair.
"""

import math
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions.base import FUNCTIONS, Domain, Function, Role
from trans4init.ablations.seeding import keyed_generator

__all__ = ["RelativeFunction"]


class RelativeFunction(Function):
    """Maps distances |i − j| [N] to biases [H, N]. Without it there is no bias (NoPE)."""

    slot = "position"
    role: ClassVar[Role] = "bias"
    domain = Domain(0, 4095, integer=True)
    default_shape: ClassVar[dict[str, int]] = {"heads": 8}

    def outputs(self, **shape: int) -> int:
        """Return the number of heads."""
        self.check_shape(**shape)
        if shape["heads"] < 1:
            raise InputError(f"{self.name} needs at least 1 head, and {shape['heads']} was given.")
        return shape["heads"]

    def arrange(self, rows: Tensor) -> Tensor:
        """Map [..., H] to [H, ...]."""
        return rows.movedim(-1, 0)

    def as_rows(self, values: Tensor) -> Tensor:
        """Map [H, ...] to [..., H]."""
        return values.movedim(0, -1)

    def left_out(self, inputs: Tensor, **shape: int) -> Tensor:
        """Return zeros [H, N]."""
        return inputs.new_zeros(self.outputs(**shape), *inputs.shape)


def _per_head(values: Tensor, inputs: Tensor) -> Tensor:
    """Reshape values [H] so that they broadcast against inputs [...]."""
    return values.to(inputs).reshape(-1, *[1] * inputs.dim())


@FUNCTIONS.register
class Alibi(RelativeFunction):
    """Computes −2^(−8h/H) |i − j| for head h of H, counted from 1; other slopes for an H that is not a power of two."""

    name = "alibi"
    source = "Press et al. 2022, Train Short, Test Long: Attention with Linear Biases, section 3"
    tails = "falls linearly"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map distances [N] to biases [H, N]."""
        return -_per_head(self.slopes(self.outputs(**shape)), inputs) * inputs.abs()

    @staticmethod
    def slopes(heads: int) -> Tensor:
        """Compute the slope of each head, [H] float64, as the paper's code does.

        They are the slopes of the next lower power of two, then every second one of the next higher power.
        """
        below = 2 ** math.floor(math.log2(heads))
        slopes = [2 ** (-8 * (h + 1) / below) for h in range(below)]
        slopes += [2 ** (-8 * (2 * h + 1) / (2 * below)) for h in range(heads - below)]
        return torch.tensor(slopes, dtype=torch.float64)


class Kerple(RelativeFunction):
    """Is KERPLE with fixed numbers: the paper trains two per head, here they are spread over the range they start in.

    The authors' code draws their initial values uniformly: p from (0, 2), a from (0, 1).
    """

    def starts(self, **shape: int) -> tuple[Tensor, Tensor]:
        """Return p in (0, 2) and a in (0, 1), evenly spaced over the heads, [H] float64 each."""
        heads = self.outputs(**shape)
        even = (torch.arange(heads, dtype=torch.float64) + 0.5) / heads
        return 2 * even, even.flip(0)


@FUNCTIONS.register
class KerpleLog(Kerple):
    """Computes −p ln(1 + a |i − j|)."""

    name = "kerple-log"
    source = (
        "Chi et al. 2022, KERPLE: Kernelized Relative Positional Embedding for Length Extrapolation, where p and "
        "a are r1 and r2; its code's ParallelKerpleLog"
    )
    tails = "falls as the logarithm"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map distances [N] to biases [H, N]."""
        p, a = (_per_head(values, inputs) for values in self.starts(**shape))
        return -p * torch.log1p(a * inputs.abs())


@FUNCTIONS.register
class KerplePower(Kerple):
    """Computes −a |i − j|^p."""

    name = "kerple-power"
    source = (
        "Chi et al. 2022, KERPLE: Kernelized Relative Positional Embedding for Length Extrapolation, where a and "
        "p are r1 and r2; its code's ParallelKerplePower"
    )
    tails = "falls as a power below the square"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map distances [N] to biases [H, N]."""
        p, a = (_per_head(values, inputs) for values in self.starts(**shape))
        return -a * inputs.abs() ** p

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """Compute −a p |i − j|^(p − 1), and 0 at distance 0, where the derivative is unbounded for p < 1."""
        p, a = (_per_head(values, inputs) for values in self.starts(**shape))
        slope = -a * p * inputs.abs() ** (p - 1) * inputs.sign()
        return torch.where(inputs == 0, torch.zeros_like(slope), slope)


@FUNCTIONS.register
class Fire(RelativeFunction):
    """Computes f(ψ(i − j) / ψ(L)), where ψ(x) = ln(1 + c x), and f is an MLP with 32 ReLU units.

    The closed form is one fixed draw of f's initial values, with c = 0.1 and L = 512, where the paper starts. The paper
    trains f, c and L, and normalises by the query's position: see `fire-query`. With a constant L the bias is a
    function of i − j; a net in its place learns all of it.
    """

    name = "fire"
    source = (
        "Li et al. 2024, Functional Interpolation for Relative Positions Improves Long Context Transformers, section "
        "3, and its code in the appendix"
    )
    tails = "goes on linearly in ln(distance)"
    threshold: ClassVar[int] = 512
    """The distance that is scaled to 1: L in the paper."""
    curvature: ClassVar[float] = 0.1
    """The factor on distances in the logarithm: c in the paper."""

    def squeezed(self, distances: Tensor, curvature: Tensor | None = None) -> Tensor:
        """Compute ψ(|x|); c is `curvature`, or else the initial one."""
        return torch.log1p((distances * (self.curvature if curvature is None else curvature)).abs())

    def mlp(self, inputs: Tensor, **shape: int) -> Tensor:
        """Compute f, which maps [...] to [H, ...]."""
        first, shift, last, offset = (value.to(inputs) for value in _fire_draw(self.outputs(**shape)))
        values: Tensor = (torch.relu(inputs[..., None] * first + shift) @ last + offset).movedim(-1, 0)
        return values

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map distances [N] to biases [H, N]."""
        return self.mlp(self.squeezed(inputs) / math.log1p(self.curvature * self.threshold), **shape)


@FUNCTIONS.register
class FireQuery(Fire):
    """Is FIRE as published, normalised by n = max(L, i) of query i. The function is f, of ψ(i − j) / ψ(n) in [0, 1].

    The slot trains c and L in every arm, as the paper does; in the paper f is trained too, from a random start: a net
    `mlp-relu` with 32 hidden units in arm `learned-from-scratch`. The paper's code adds 1e-6 to ψ(n).
    """

    name = "fire-query"
    role: ClassVar[Role] = "pair-bias"
    trained_numbers: ClassVar[dict[str, float]] = {"curvature": 0.1, "threshold_factor": 1.0}
    domain = Domain(0, 1, integer=False)
    support = (0.0, 1.0)
    tails = "no inputs outside 0 to 1"

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Map normalised distances [...] to biases [H, ...]."""
        return self.mlp(inputs, **shape)

    def left_out(self, inputs: Tensor, **shape: int) -> Tensor:
        """Return zeros [H, ...] that depend on the inputs: c and L get a gradient, as distributed training expects."""
        return (0 * inputs).expand(self.outputs(**shape), *inputs.shape)

    def pair_inputs(
        self,
        queries: Tensor,
        keys: Tensor | None = None,
        *,
        causal: bool = True,
        curvature: Tensor | None = None,
        threshold_factor: Tensor | None = None,
    ) -> Tensor:
        """Compute ψ(|i − j|) / ψ(max(L, i)) of query and key positions, [..., Lq, Lk] float32; 0 where j > i.

        keys: the queries' positions where None. Not causal, the maximum is of (L, i, j), which keeps the values of
        keys after the query in [0, 1] too. curvature, threshold_factor: c, and the factor on 512 that gives L; numbers
        that can be trained, the initial ones where None.
        """
        i, j = queries.float()[..., None], (queries if keys is None else keys).float()
        distances = (i - j).clamp_min(0) if causal else i - j
        reach = i if causal else torch.maximum(i, j)
        if threshold_factor is None:
            reach = reach.clamp_min(self.threshold)
        else:
            reach = torch.maximum(reach, (self.threshold * threshold_factor).abs())
        return self.squeezed(distances, curvature) / self.squeezed(reach, curvature)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _fire_draw(heads: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the values of `_drawn`, which a compiled model takes as constants: its graph can make no generator."""
    return _drawn(heads)


@cache
def _drawn(heads: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw weights and biases of f, float64: uniform in ±1/√fan-in, as PyTorch's linear layers are initialised."""
    generator = keyed_generator(0, "fire", heads)
    shapes = ((1, 32), (1, 32), (32, heads), (32, heads))
    drawn = [torch.rand(shape[1], dtype=torch.float64, generator=generator) for shape in shapes[:2]]
    drawn += [torch.rand(32, heads, dtype=torch.float64, generator=generator)]
    drawn += [torch.rand(heads, dtype=torch.float64, generator=generator)]
    bounds = (1.0, 1.0, 1 / math.sqrt(32), 1 / math.sqrt(32))
    first, shift, last, offset = (bound * (2 * value - 1) for bound, value in zip(bounds, drawn, strict=True))
    return first, shift, last, offset


class Tabulated(RelativeFunction):
    """Is a relative encoding without a closed form: a trained table, whose only arm is `free-table`."""

    closed_form = False
    domain = Domain(0, 511, integer=True)

    def analytic(self, inputs: Tensor, **shape: int) -> Tensor:
        """Raise InputError: there is no closed form."""
        raise InputError(f"{self.name} has no closed form; its only arm is free-table.")

    def derivative(self, inputs: Tensor, **shape: int) -> Tensor:
        """Raise InputError: there is no closed form."""
        raise InputError(f"{self.name} has no closed form, and so no derivative.")

    def initial_table(self, inputs: Tensor, generator: torch.Generator, **shape: int) -> Tensor:
        """Draw from a normal distribution with deviation 0.02, a row for each input, [N, H]."""
        return 0.02 * torch.randn(len(inputs), self.outputs(**shape), dtype=inputs.dtype, generator=generator)

    def open_ended(self) -> bool:
        """Return True: every distance beyond the table has its last row."""
        return True


@FUNCTIONS.register
class LearnedDistance(Tabulated):
    """Holds one trained bias per head and distance; the last is used for every distance beyond."""

    name = "learned-distance"
    source = "Shaw et al. 2018, Self-Attention with Relative Position Representations, section 3.2 (clipped distances)"
    tails = "the value of the largest trained distance"

    def table_index(self, inputs: Tensor, domain: Domain, **shape: int) -> Tensor:
        """Return the distance, at most the domain's end."""
        return inputs.abs().clamp(max=int(domain.high)).long() - int(domain.low)


@FUNCTIONS.register
class T5(Tabulated):
    """Holds a bias for each of 32 buckets of distances: one each to 15, then logarithmically wider, the last open."""

    name = "t5"
    source = "Raffel et al. 2020, Exploring the Limits of Transfer Learning with T5, section 2.1 (causal buckets)"
    tails = "constant from distance 113 on"
    buckets: ClassVar[int] = 32
    furthest: ClassVar[int] = 128

    def table_index(self, inputs: Tensor, domain: Domain, **shape: int) -> Tensor:
        """Return the bucket, 0 to 31; [N] to [N] int64."""
        distances = inputs.abs().double()
        exact = self.buckets // 2
        share = torch.log(distances.clamp_min(1) / exact) / math.log(self.furthest / exact)
        far = (exact + share * (self.buckets - exact)).floor().clamp_max(self.buckets - 1)
        return torch.where(distances < exact, distances, far).long()

    def initial_table(self, inputs: Tensor, generator: torch.Generator, **shape: int) -> Tensor:
        """Draw from a normal distribution with deviation 0.02, a row for each bucket, [32, H]."""
        return 0.02 * torch.randn(self.buckets, self.outputs(**shape), dtype=inputs.dtype, generator=generator)
