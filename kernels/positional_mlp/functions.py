"""Elementwise functions that both kernels call: features, activations and their derivatives, in float32."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,attr-defined"
# Triton reads these functions, Python doesn't run them.

import triton
import triton.language as tl

__all__ = ["activate", "log1p", "sine_and_cosine", "slope"]


@triton.jit
def sine_and_cosine(x):
    """Return sin and cos of x: right within 1e-7 up to 1e4 radians, 1e-6 up to 1e5.

    x is reduced by π/2 in three parts (Cody and Waite), then Cephes' polynomials are evaluated.

    libdevice's sinf and cosf would each reduce the angle again, with a path for huge angles through local memory.
    Beyond 1e5 the error stays about that of the product position · frequency in float32.
    """
    quarter = tl.floor(x * 0.6366197723675814 + 0.5)
    r = ((x - quarter * 1.5703125) - quarter * 4.837512969970703e-4) - quarter * 7.549790126404332e-8
    square = r * r
    sine = r + r * square * (-1.6666654611e-1 + square * (8.3321608736e-3 - square * 1.9515295891e-4))
    tail = 4.166664568298827e-2 + square * (-1.388731625493765e-3 + square * 2.443315711809948e-5)
    cosine = 1.0 - 0.5 * square + square * square * tail
    turns = quarter.to(tl.int32)
    swapped = (turns & 1) == 1
    up = tl.where(swapped, cosine, sine)
    right = tl.where(swapped, sine, cosine)
    return tl.where((turns & 2) == 2, -up, up), tl.where(((turns + 1) & 2) == 2, -right, right)


@triton.jit
def _logistic(x):
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def _tanh(x):
    """Return tanh from one exponential of a negative number; near 0, where the quotient would cancel, from a series."""
    size = tl.abs(x)
    decay = tl.exp(-2.0 * size)
    quotient = (1.0 - decay) / (1.0 + decay)
    square = x * x
    series = -1.3333333333e-1 + square * (5.3968253968e-2 - square * 2.1869488536e-2)
    near = size - size * square * (3.3333333333e-1 + square * series)
    return tl.where(x < 0, -1.0, 1.0) * tl.where(size < 0.25, near, quotient)


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    """Return the activation of the hidden layers; it is 0 at 0."""
    if ACTIVATION == "gelu":
        y = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    elif ACTIVATION == "relu":
        y = tl.where(x < 0, 0.0, x)
    elif ACTIVATION == "silu":
        y = x * _logistic(x)
    elif ACTIVATION == "tanh":
        y = _tanh(x)
    else:
        y, _ = sine_and_cosine(x)
    return y


@triton.jit
def slope(x, ACTIVATION: tl.constexpr):
    """Return the derivative of the activation."""
    if ACTIVATION == "gelu":
        y = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476)) + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)
    elif ACTIVATION == "relu":
        y = tl.where(x > 0, 1.0, 0.0)
    elif ACTIVATION == "silu":
        s = _logistic(x)
        y = s + x * s * (1.0 - s)
    elif ACTIVATION == "tanh":
        decay = tl.exp(-2.0 * tl.abs(x))  # 1 - tanh² would cancel
        y = 4.0 * decay / ((1.0 + decay) * (1.0 + decay))
    else:
        _, y = sine_and_cosine(x)
    return y


@triton.jit
def log1p(x):
    """Return log(1 + x) for x >= 0, also right near 0: 1 + x's rounding is divided out (Goldberg 1991, theorem 4)."""
    y = 1.0 + x
    return tl.where(y == 1.0, x, tl.log(y) * (x / tl.where(y == 1.0, 1.0, y - 1.0)))
