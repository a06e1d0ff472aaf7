"""The forward kernel of the batched positional MLP, and the functions on a block of positions that both passes share.

A program works on ROWS positions of one net, in tiles of CHUNK columns. Widths need not be powers of two: they are
padded to whole tiles. Padding is harmless: padded weights are loaded as 0, and every activation is 0 at 0.

A net's parameters are one row: for each layer the weight [in, out] and then the bias [out]. Where each hidden layer is
one tile, the forward kernel keeps it in registers. Otherwise, and in the backward kernel, its tiles lie in a workspace
that belongs to the program and is used again for every block of positions, so that it stays in the cache whatever N is.

`zero` is a 0 whose value the compiler doesn't know: it keeps loops over tiles rolled. If they are unrolled, the
addresses of all tiles are live at once and spill.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator,attr-defined"
# Triton reads these functions, Python doesn't run them: their arguments are typed by the comments.

import triton
import triton.language as tl

from trans4init.kernels.positional_mlp.functions import activate, log1p, sine_and_cosine

__all__ = ["forward_kernel"]


@triton.jit
def tiles_over(size, tile):
    """Return how many tiles cover `size` entries: `tl.cdiv`, which an interpreted kernel can't call."""
    return (size + tile - 1) // tile


@triton.jit
def frequency_chunk(frequencies, i, F: tl.constexpr, TALL: tl.constexpr):
    f = i * TALL + tl.arange(0, TALL)
    return tl.load(frequencies + f, mask=f < F, other=0.0).to(tl.float32)


@triton.jit
def feature_tiles(p, w, FEATURES: tl.constexpr):
    """Return features of positions p [ROWS] at frequencies w [TALL]: sines and cosines, or one tile twice."""
    x = p[:, None] * w[None, :]
    if FEATURES == "fourier":
        first, second = sine_and_cosine(x)
    elif FEATURES == "log":
        first = log1p(tl.abs(p)[:, None] * w[None, :])
        second = first
    else:
        first = x
        second = first
    return first, second


@triton.jit
def weight_tile(layer, row, column, end, OUT: tl.constexpr, TALL: tl.constexpr, COLUMNS: tl.constexpr):
    """Return pointers to [TALL, COLUMNS] of a weight from (row, column) on, and which are in it: rows below `end`."""
    rows = row + tl.arange(0, TALL)
    columns = column + tl.arange(0, COLUMNS)
    return layer + rows[:, None] * OUT + columns[None, :], (rows < end)[:, None] & (columns < OUT)[None, :]


@triton.jit
def _times_weight(
    total,
    inputs,
    layer,
    row,
    column,
    end,
    OUT: tl.constexpr,
    TALL: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    places, real = weight_tile(layer, row, column, end, OUT, TALL, COLUMNS)
    weight = tl.load(places, mask=real, other=0.0)
    return tl.dot(inputs.to(weight.dtype), weight, total, input_precision=PRECISION)


@triton.jit
def _bias(layer, column, IN: tl.constexpr, OUT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    columns = column + tl.arange(0, COLUMNS)
    bias = tl.load(layer + IN * OUT + columns, mask=columns < OUT, other=0.0).to(tl.float32)
    return tl.full([ROWS, COLUMNS], 0.0, tl.float32) + bias[None, :]


@triton.jit
def _first_layer(
    p,
    frequencies,
    layer,
    column,
    zero,
    F: tl.constexpr,
    OUT: tl.constexpr,
    FEATURES: tl.constexpr,
    ROWS: tl.constexpr,
    TALL: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return CHUNK columns of the first layer before its activation, [ROWS, CHUNK]."""
    total = _bias(layer, column, 2 * F if FEATURES == "fourier" else F, OUT, ROWS, CHUNK)
    for i in tl.range(0, tiles_over(F, TALL) + zero, disable_licm=True):
        first, second = feature_tiles(p, frequency_chunk(frequencies, i, F, TALL), FEATURES)
        total = _times_weight(total, first, layer, i * TALL, column, F, OUT, TALL, CHUNK, PRECISION)
        if FEATURES == "fourier":
            total = _times_weight(total, second, layer, F + i * TALL, column, 2 * F, OUT, TALL, CHUNK, PRECISION)
    return total


@triton.jit
def workspace_tile(workspace, i, ROWS: tl.constexpr, CHUNK: tl.constexpr):
    """Return pointers to tile i of a hidden layer, [ROWS, CHUNK]."""
    return workspace + i * (ROWS * CHUNK) + tl.arange(0, ROWS)[:, None] * CHUNK + tl.arange(0, CHUNK)[None, :]


@triton.jit
def _next_layer(
    workspace,
    layer,
    column,
    zero,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
    COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return COLUMNS columns of activation(states in the workspace) @ W + b, [ROWS, COLUMNS]."""
    total = _bias(layer, column, IN, OUT, ROWS, COLUMNS)
    for i in tl.range(0, tiles_over(IN, CHUNK) + zero, disable_licm=True):
        state = activate(tl.load(workspace_tile(workspace, i, ROWS, CHUNK)), ACTIVATION)
        total = _times_weight(total, state, layer, i * CHUNK, column, IN, OUT, CHUNK, COLUMNS, PRECISION)
    return total


@triton.jit
def fill_workspace(
    workspace,
    p,
    frequencies,
    layer,
    zero,
    F: tl.constexpr,
    W1: tl.constexpr,
    W2: tl.constexpr,
    W3: tl.constexpr,
    FEATURES: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    TALL: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write every hidden layer, before its activation, to the workspace, one layer after the other."""
    for j in tl.range(0, tiles_over(W1, CHUNK) + zero, disable_licm=True):
        z = _first_layer(p, frequencies, layer, j * CHUNK, zero, F, W1, FEATURES, ROWS, TALL, CHUNK, PRECISION)
        tl.store(workspace_tile(workspace, j, ROWS, CHUNK), z)
    layer += ((2 * F if FEATURES == "fourier" else F) + 1) * W1
    tl.debug_barrier()  # other threads of this program read what this thread wrote
    if W2:
        second = workspace + tiles_over(W1, CHUNK) * (ROWS * CHUNK)
        for j in tl.range(0, tiles_over(W2, CHUNK) + zero, disable_licm=True):
            z = _next_layer(workspace, layer, j * CHUNK, zero, W1, W2, ACTIVATION, ROWS, CHUNK, CHUNK, PRECISION)
            tl.store(workspace_tile(second, j, ROWS, CHUNK), z)
        layer += (W1 + 1) * W2
        tl.debug_barrier()
        if W3:
            third = second + tiles_over(W2, CHUNK) * (ROWS * CHUNK)
            for j in tl.range(0, tiles_over(W3, CHUNK) + zero, disable_licm=True):
                z = _next_layer(second, layer, j * CHUNK, zero, W2, W3, ACTIVATION, ROWS, CHUNK, CHUNK, PRECISION)
                tl.store(workspace_tile(third, j, ROWS, CHUNK), z)
            tl.debug_barrier()


@triton.jit
def _state_in_registers(
    p,
    frequencies,
    layer,
    zero,
    F: tl.constexpr,
    W1: tl.constexpr,
    W2: tl.constexpr,
    W3: tl.constexpr,
    FEATURES: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ROWS: tl.constexpr,
    TALL: tl.constexpr,
    CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return the last hidden layer after its activation, for nets whose hidden layers are one tile each."""
    z = _first_layer(p, frequencies, layer, 0, zero, F, W1, FEATURES, ROWS, TALL, CHUNK, PRECISION)
    state = activate(z, ACTIVATION)
    layer += ((2 * F if FEATURES == "fourier" else F) + 1) * W1
    if W2:
        z = _bias(layer, 0, W1, W2, ROWS, CHUNK)
        state = activate(_times_weight(z, state, layer, 0, 0, W1, W2, CHUNK, CHUNK, PRECISION), ACTIVATION)
        layer += (W1 + 1) * W2
    if W3:
        z = _bias(layer, 0, W2, W3, ROWS, CHUNK)
        state = activate(_times_weight(z, state, layer, 0, 0, W2, W3, CHUNK, CHUNK, PRECISION), ACTIVATION)
    return state


@triton.jit
def forward_kernel(
    positions,  # [G or 1, N]
    frequencies,  # [G or 1, F]
    parameters,  # [G, P]
    add_to,  # [G, B, N, OUT]; not read unless ADD
    out,  # [G, B, N, OUT]
    workspace,  # [programs, hidden tiles · ROWS · CHUNK] float32; not used where IN_REGISTERS
    N,
    B,
    batch_per_program,
    positions_stride,
    frequencies_stride,
    workspace_stride,
    P: tl.constexpr,
    F: tl.constexpr,
    W1: tl.constexpr,
    W2: tl.constexpr,  # 0 where there is no such layer; W3 too
    W3: tl.constexpr,
    OUT: tl.constexpr,
    FEATURES: tl.constexpr,
    ACTIVATION: tl.constexpr,
    ADD: tl.constexpr,
    IN_REGISTERS: tl.constexpr,
    ROWS: tl.constexpr,
    TALL: tl.constexpr,  # frequencies in a tile of features
    CHUNK: tl.constexpr,
    COLUMNS: tl.constexpr,  # outputs in a tile
    PRECISION: tl.constexpr,
):
    """Compute ROWS positions of one net in each program, and add them to `batch_per_program` entries of `add_to`."""
    zero = tl.minimum(N, 0)
    program = tl.program_id(0).to(tl.int64)
    net = program // tiles_over(N, ROWS)
    rows = (program % tiles_over(N, ROWS)) * ROWS + tl.arange(0, ROWS)
    p = tl.load(positions + net * positions_stride + rows, mask=rows < N, other=0.0).to(tl.float32)
    w = frequencies + net * frequencies_stride
    layer = parameters + net * P
    IN: tl.constexpr = 2 * F if FEATURES == "fourier" else F
    LAST: tl.constexpr = W3 if W3 else (W2 if W2 else W1)
    last_layer = layer + (IN + 1) * W1 + (W1 + 1) * W2 + (W2 + 1) * W3
    workspace += (tl.program_id(1) * tl.num_programs(0) + program) * workspace_stride
    if IN_REGISTERS:
        state = _state_in_registers(p, w, layer, 0, F, W1, W2, W3, FEATURES, ACTIVATION, ROWS, TALL, CHUNK, PRECISION)
    else:
        fill_workspace(workspace, p, w, layer, zero, F, W1, W2, W3, FEATURES, ACTIVATION, ROWS, TALL, CHUNK, PRECISION)
        if W2:
            workspace += tiles_over(W1, CHUNK) * (ROWS * CHUNK)
        if W3:
            workspace += tiles_over(W2, CHUNK) * (ROWS * CHUNK)
    first = tl.program_id(1) * batch_per_program
    for column in tl.range(0, OUT + zero, COLUMNS, disable_licm=True):
        if IN_REGISTERS:
            encoding = _bias(last_layer, column, LAST, OUT, ROWS, COLUMNS)
            encoding = _times_weight(encoding, state, last_layer, 0, column, LAST, OUT, CHUNK, COLUMNS, PRECISION)
        else:
            encoding = _next_layer(
                workspace, last_layer, column, zero, LAST, OUT, ACTIVATION, ROWS, CHUNK, COLUMNS, PRECISION
            )
        columns = column + tl.arange(0, COLUMNS)
        real = (rows < N)[:, None] & (columns < OUT)[None, :]
        for entry in tl.range(first, tl.minimum(first + batch_per_program, B), disable_licm=True):
            places = ((net * B + entry) * N + rows[:, None]) * OUT + columns[None, :]
            values = encoding
            if ADD:
                values += tl.load(add_to + places, mask=real, other=0.0).to(tl.float32)
            tl.store(out + places, values.to(out.dtype.element_ty), mask=real)
