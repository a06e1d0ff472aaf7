"""The Triton kernel of the polyline: it reads each input once and writes its value or its gradient once."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,attr-defined"
# Triton reads these functions, Python doesn't run them.

import triton
import triton.language as tl

__all__ = ["polyline_kernel"]


@triton.jit
def polyline_kernel(
    inputs,
    upstream,
    kinks,
    lines,
    out,
    count,
    PIECES: tl.constexpr,
    LEVELS: tl.constexpr,
    SLOPE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute out [count]: the value of each input's line, or with SLOPE `upstream` times the line's slope.

    kinks [K − 1] and lines [2, K] are float32. The bisection takes LEVELS = ⌈log2 K⌉ loads, which hit the cache: the
    kinks and lines take a few cache lines.
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    inside = at < count
    x = tl.load(inputs + at, mask=inside, other=0.0).to(tl.float32)
    piece = tl.full([BLOCK], 0, tl.int32)  # how many kinks are below x, as far as is known
    for level in tl.static_range(LEVELS):
        further = piece + (1 << (LEVELS - 1 - level))
        kink = tl.load(kinks + further - 1, mask=further < PIECES, other=float("inf"))
        piece = tl.where(x > kink, further, piece)
    slope = tl.load(lines + piece)
    if SLOPE:
        value = tl.load(upstream + at, mask=inside, other=0.0).to(tl.float32) * slope
    else:
        value = tl.fma(slope, x, tl.load(lines + PIECES + piece))
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)
