"""The backward kernel of the batched positional MLP: it recomputes hidden layers, then differentiates the top first.

It is in a file of its own because a call without gradients needs none of it. `README.md` derives it; `kernel.py` says
what a program and its workspace are.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,attr-defined"
# Triton reads these functions, Python doesn't run them: their arguments are typed by the comments.

import triton
import triton.language as tl

from trans4init.kernels.positional_mlp.functions import activate, slope
from trans4init.kernels.positional_mlp.kernel import (
    feature_tiles,
    fill_workspace,
    frequency_chunk,
    tiles_over,
    weight_tile,
    workspace_tile,
)

__all__ = ["backward_kernel"]


@triton.jit
def _accumulate(places, values, real, fresh):
    """Add values to places that only this program writes; `fresh`, the first time, it overwrites what lies there."""
    before = tl.load(places, mask=real, other=0.0)
    tl.store(places, tl.where(fresh, values, before + values), mask=real)


@triton.jit
def _accumulate_sum(partial, column, gradient, fresh, OUT: tl.constexpr, COLUMNS: tl.constexpr):
    columns = column + tl.arange(0, COLUMNS)
    _accumulate(partial + columns, tl.reduce(gradient, 0, tl.standard._sum_combine), columns < OUT, fresh)


@triton.jit
def _weight_backward(
    total,
    inputs,
    gradient,
    layer,
    partial,
    row,
    column,
    end,
    fresh,
    OUT: tl.constexpr,
    TALL: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add one weight tile's gradient to `partial`; return `total` plus its part in the gradient of its inputs."""
    places, real = weight_tile(layer, row, column, end, OUT, TALL, COLUMNS)
    weight = tl.load(places, mask=real, other=0.0)
    gradient = gradient.to(weight.dtype)
    products = tl.dot(tl.trans(inputs.to(weight.dtype)), gradient, input_precision=PRECISION)
    places, real = weight_tile(partial, row, column, end, OUT, TALL, COLUMNS)
    _accumulate(places, products, real, fresh)
    return tl.dot(gradient, tl.trans(weight), total, input_precision=PRECISION)


@triton.jit
def _output_backward(
    workspace,
    layer,
    partial,
    upstream,
    rows,
    N,
    fresh,
    zero,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Differentiate the last layer; the states below it are replaced by their gradients."""
    for i in tl.range(0, tiles_over(IN, CHUNK) + zero, disable_licm=True):
        z = tl.load(workspace_tile(workspace, i, ROWS, CHUNK))
        active = activate(z, ACTIVATION)
        total = tl.full([ROWS, CHUNK], 0.0, tl.float32)
        for column in tl.range(0, OUT + zero, COLUMNS, disable_licm=True):
            columns = column + tl.arange(0, COLUMNS)
            real = (rows < N)[:, None] & (columns < OUT)[None, :]
            gradient = tl.load(upstream + rows[:, None] * OUT + columns[None, :], mask=real, other=0.0).to(tl.float32)
            if i == 0:
                _accumulate_sum(partial + IN * OUT, column, gradient, fresh, OUT, COLUMNS)
            total = _weight_backward(
                total, active, gradient, layer, partial, i * CHUNK, column, IN, fresh, OUT, CHUNK, COLUMNS, PRECISION
            )
        tl.store(workspace_tile(workspace, i, ROWS, CHUNK), total * slope(z, ACTIVATION))
    tl.debug_barrier()


@triton.jit
def _layer_backward(
    gradients,
    states,
    layer,
    partial,
    fresh,
    zero,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Differentiate a hidden layer that is not the first; the states below it are replaced by their gradients."""
    for i in tl.range(0, tiles_over(IN, CHUNK) + zero, disable_licm=True):
        z = tl.load(workspace_tile(states, i, ROWS, CHUNK))
        active = activate(z, ACTIVATION)
        total = tl.full([ROWS, CHUNK], 0.0, tl.float32)
        for j in tl.range(0, tiles_over(OUT, CHUNK) + zero, disable_licm=True):
            gradient = tl.load(workspace_tile(gradients, j, ROWS, CHUNK))
            if i == 0:
                _accumulate_sum(partial + IN * OUT, j * CHUNK, gradient, fresh, OUT, CHUNK)
            total = _weight_backward(
                total, active, gradient, layer, partial, i * CHUNK, j * CHUNK, IN, fresh, OUT, CHUNK, CHUNK, PRECISION
            )
        tl.store(workspace_tile(states, i, ROWS, CHUNK), total * slope(z, ACTIVATION))
    tl.debug_barrier()


@triton.jit
def _by_frequency(p, w, first, second, half, FEATURES: tl.constexpr):
    """Return the derivative of features by their frequencies; `first` and `second`: what `feature_tiles` returned."""
    if FEATURES == "fourier":  # d sin(p w) = p cos(p w) dw, d cos(p w) = -p sin(p w) dw
        change = tl.where(half == 0, second, -first) * p[:, None]
    elif FEATURES == "log":  # d log(1 + w |p|) = |p| / (1 + w |p|) dw
        size = tl.abs(p)[:, None]
        change = size / (1.0 + size * w[None, :])
    else:
        change = p[:, None]
    return change


@triton.jit
def _first_backward(
    gradients,
    p,
    frequencies,
    layer,
    partial,
    frequencies_partial,
    fresh,
    zero,
    F: tl.constexpr,
    OUT: tl.constexpr,
    FEATURES: tl.constexpr,
    TRAIN_FREQUENCIES: tl.constexpr,
    ROWS: tl.constexpr,
    TALL: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Differentiate the first layer and the frequencies: sines, then cosines; both at once take twice the registers."""
    IN: tl.constexpr = 2 * F if FEATURES == "fourier" else F
    HALVES: tl.constexpr = 2 if FEATURES == "fourier" else 1
    for i in tl.range(0, tiles_over(F, TALL) + zero, disable_licm=True):
        w = frequency_chunk(frequencies, i, F, TALL)
        first, second = feature_tiles(p, w, FEATURES)
        of_frequencies = tl.full([ROWS, TALL], 0.0, tl.float32)
        for half in tl.range(0, HALVES + zero, disable_licm=True):
            inputs = tl.where(half == 0, first, second)
            d_inputs = tl.full([ROWS, TALL], 0.0, tl.float32)
            for j in tl.range(0, tiles_over(OUT, CHUNK) + zero, disable_licm=True):
                column = j * CHUNK
                gradient = tl.load(workspace_tile(gradients, j, ROWS, CHUNK))
                if i + half == 0:
                    _accumulate_sum(partial + IN * OUT, column, gradient, fresh, OUT, CHUNK)
                d_inputs = _weight_backward(
                    d_inputs, inputs, gradient, layer, partial, half * F + i * TALL, column, (half + 1) * F, fresh,
                    OUT, TALL, CHUNK, PRECISION,
                )  # fmt: skip
            if TRAIN_FREQUENCIES:
                of_frequencies += d_inputs * _by_frequency(p, w, first, second, half, FEATURES)
        if TRAIN_FREQUENCIES:
            _accumulate_sum(frequencies_partial, i * TALL, of_frequencies, fresh, F, TALL)


@triton.jit
def backward_kernel(
    positions,  # [G or 1, N]
    frequencies,  # [G or 1, F]
    parameters,  # [G, P]
    upstream,  # [G, N, OUT]
    partials,  # [SPLITS, G, P + F] float32
    workspace,  # [SPLITS · G, hidden tiles · ROWS · CHUNK] float32
    N,
    G,
    blocks_per_program,
    positions_stride,
    frequencies_stride,
    workspace_stride,
    P: tl.constexpr,
    F: tl.constexpr,
    W1: tl.constexpr,
    W2: tl.constexpr,
    W3: tl.constexpr,
    OUT: tl.constexpr,
    FEATURES: tl.constexpr,
    ACTIVATION: tl.constexpr,
    TRAIN_FREQUENCIES: tl.constexpr,
    ROWS: tl.constexpr,
    TALL: tl.constexpr,
    CHUNK: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Differentiate `blocks_per_program` blocks of one net's positions in each program, into one row of `partials`.

    Nothing is added atomically: the sum over positions is taken in the same order every time.
    """
    zero = tl.minimum(N, 0)
    program = tl.program_id(0).to(tl.int64)
    net, split = program % G, program // G
    partial = partials + program * (P + F)
    first = workspace + program * workspace_stride
    second = first + tiles_over(W1, CHUNK) * (ROWS * CHUNK)
    third = second + tiles_over(W2, CHUNK) * (ROWS * CHUNK)
    w = frequencies + net * frequencies_stride
    IN: tl.constexpr = 2 * F if FEATURES == "fourier" else F
    LAST: tl.constexpr = W3 if W3 else (W2 if W2 else W1)
    SECOND: tl.constexpr = (IN + 1) * W1
    THIRD: tl.constexpr = SECOND + (W1 + 1) * W2
    FINAL: tl.constexpr = THIRD + (W2 + 1) * W3
    layer = parameters + net * P
    upstream += net * N * OUT
    start = split * blocks_per_program
    for block in tl.range(start, tl.minimum(start + blocks_per_program, tiles_over(N, ROWS)), disable_licm=True):
        fresh = block == start
        rows = block * ROWS + tl.arange(0, ROWS)
        p = tl.load(positions + net * positions_stride + rows, mask=rows < N, other=0.0).to(tl.float32)
        fill_workspace(first, p, w, layer, zero, F, W1, W2, W3, FEATURES, ACTIVATION, ROWS, TALL, CHUNK, PRECISION)
        last = third if W3 else (second if W2 else first)
        _output_backward(
            last, layer + FINAL, partial + FINAL, upstream, rows, N, fresh, zero,
            LAST, OUT, ACTIVATION, ROWS, CHUNK, COLUMNS, PRECISION,
        )  # fmt: skip
        if W3:
            _layer_backward(
                third, second, layer + THIRD, partial + THIRD, fresh, zero, W2, W3, ACTIVATION, ROWS, CHUNK, PRECISION
            )
        if W2:
            _layer_backward(
                second, first, layer + SECOND, partial + SECOND, fresh, zero, W1, W2, ACTIVATION, ROWS, CHUNK, PRECISION
            )
        _first_backward(
            first, p, w, layer, partial, partial + P, fresh, zero,
            F, W1, FEATURES, TRAIN_FREQUENCIES, ROWS, TALL, CHUNK, PRECISION,
        )  # fmt: skip
        tl.debug_barrier()  # the next block reads and replaces what other threads of this program wrote
