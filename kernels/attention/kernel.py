"""The Triton kernels: the forward pass, and what every pass shares about one tile of scores.

A tile holds BLOCK_M queries by BLOCK_N keys, or its transpose. Scores are kept in units of log 2, so that exp2 is the
only exponential. `README.md` derives each step; `backward_kernel.py` holds the gradients. Reductions go through
`tl.reduce`, since the interpreter knows it whether or not Triton itself was imported for interpretation.
"""
# ruff: noqa: N803, N806, SIM108  (constants are upper case; Triton compiles only part of Python)
# mypy: ignore-errors

import triton
import triton.language as tl

__all__ = ["forward_kernel"]


@triton.jit
def row_maximum(x):
    """The largest entry of each row."""
    return tl.reduce(x, 1, tl.standard._elementwise_max)


@triton.jit
def row_sum(x):
    """The sum of each row."""
    return tl.reduce(x, 1, tl.standard._sum_combine)


@triton.jit
def multiply(a, b, UPCAST: tl.constexpr):
    """a @ b in float32, without rounding float32 operands to TF32. UPCAST: the interpreter multiplies no bfloat16."""
    if UPCAST:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def load_rows(base, start, limit, stride, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Rows [start, start + ROWS) of a [limit, HEAD_DIM] matrix -> [ROWS, BLOCK_D], 0 outside of it."""
    row = tl.arange(0, ROWS)
    dim = tl.arange(0, BLOCK_D)
    here = base + tl.cast(start, tl.int64) * stride + row[:, None] * stride + dim[None, :]
    inside = (start + row < limit)[:, None]
    if HEAD_DIM != BLOCK_D:
        inside = inside & (dim < HEAD_DIM)[None, :]
    return tl.load(here, mask=inside, other=0.0)


@triton.jit
def store_rows(base, start, limit, stride, values, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Write [ROWS, BLOCK_D] values to the rows of a [limit, HEAD_DIM] matrix from `start` on."""
    row = tl.arange(0, ROWS)
    dim = tl.arange(0, BLOCK_D)
    here = base + tl.cast(start, tl.int64) * stride + row[:, None] * stride + dim[None, :]
    inside = (start + row < limit)[:, None] & (dim < HEAD_DIM)[None, :]
    tl.store(here, values.to(base.dtype.element_ty), mask=inside)


@triton.jit
def mix(x):
    """A bijection of uint32 that leaves no trace of its input (C. Wellons: lowbias32)."""
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def kept(seed, plane, rows, columns, threshold):
    """Which weights dropout keeps: a function of seed, batch entry and head (`plane`), query and key alone."""
    key = mix(mix(seed ^ mix(tl.cast(plane, tl.uint32))) + rows.to(tl.uint32))
    return (mix(key ^ mix(columns.to(tl.uint32))) >> 8) >= tl.cast(threshold, tl.uint32)


@triton.jit
def visible(rows, columns, shift, key_count, window, CAUSAL: tl.constexpr, WINDOW: tl.constexpr):
    """Which query (`rows`) sees which key (`columns`); query i stands at key position i + shift."""
    seen = columns < key_count
    if CAUSAL:
        seen = seen & (columns <= rows + shift)
    if WINDOW:
        seen = seen & (columns > rows + shift - window)
    return seen


@triton.jit
def load_strip(table, row_start, column_start, queries, keys, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """The BLOCK_M + BLOCK_N - 1 table values that a tile needs, in units of log 2, first the most negative i - j."""
    WIDTH: tl.constexpr = 2 * BLOCK_M if BLOCK_M > BLOCK_N else 2 * BLOCK_N
    entry = row_start - column_start + keys - BLOCK_N + tl.arange(0, WIDTH)
    inside = (entry >= 0) & (entry < queries + keys - 1)
    return tl.load(table + entry, mask=inside, other=0.0) * 1.4426950408889634


@triton.jit
def spread(strip, FIRST: tl.constexpr, SECOND: tl.constexpr, TRANSPOSED: tl.constexpr):
    """The strip's value for each entry of a tile: [BLOCK_M, BLOCK_N], or transposed [BLOCK_N, BLOCK_M]."""
    first = tl.arange(0, FIRST)[:, None]
    second = tl.arange(0, SECOND)[None, :]
    if TRANSPOSED:
        offset = second - first + (FIRST - 1)
    else:
        offset = first - second + (SECOND - 1)
    return tl.reshape(tl.gather(strip, tl.reshape(offset, [FIRST * SECOND]), 0), [FIRST, SECOND])


@triton.jit
def forward_span(
    acc, norm, peak, q, k_head, v_head, table, seed, plane, row_start, start, stop, queries, keys, key_count, window,
    k_stride, v_stride, scale, threshold, keep_scale,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BIAS: tl.constexpr, DROPOUT: tl.constexpr,
    MASK: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Fold the keys [start, stop) into a block of queries by the online softmax (Milakov and Gimelshein 2018)."""
    rows = row_start + tl.arange(0, BLOCK_M)[:, None]
    for column_start in tl.range(start, stop, BLOCK_N):
        columns = column_start + tl.arange(0, BLOCK_N)[None, :]
        k = load_rows(k_head, column_start, keys, k_stride, BLOCK_N, HEAD_DIM, BLOCK_D)
        scores = multiply(q, tl.trans(k), UPCAST) * scale  # [BLOCK_M, BLOCK_N]
        if BIAS:
            strip = load_strip(table, row_start, column_start, queries, keys, BLOCK_M, BLOCK_N)
            scores += spread(strip, BLOCK_M, BLOCK_N, False)
        if MASK:
            seen = visible(rows, columns, keys - queries, key_count, window, CAUSAL, WINDOW)
            scores = tl.where(seen, scores, float("-inf"))
        highest = tl.maximum(peak, row_maximum(scores))
        level = tl.where(highest == float("-inf"), 0.0, highest)  # a row that has seen nothing yet stays at 0
        weights = tl.math.exp2(scores - level[:, None])
        shrink = tl.math.exp2(peak - level)
        norm = norm * shrink + row_sum(weights)
        if DROPOUT:
            weights = tl.where(kept(seed, plane, rows, columns, threshold), weights * keep_scale, 0.0)
        v = load_rows(v_head, column_start, keys, v_stride, BLOCK_N, HEAD_DIM, BLOCK_D)
        acc = acc * shrink[:, None] + multiply(weights.to(v.dtype), v, UPCAST)
        peak = highest
    return acc, norm, peak


@triton.jit
def forward_kernel(
    q_ptr, k_ptr, v_ptr, table_ptr, lengths_ptr, seed_ptr, out_ptr, lse_ptr,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, out_batch, out_head, out_row,
    heads, groups, queries, keys, table_batches, seed_batches, window, scale, threshold, keep_scale,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BIAS: tl.constexpr, LENGTHS: tl.constexpr,
    DROPOUT: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """out and log-sum-exp of one block of queries of one head. One program each; the longest rows of a head first.

    `groups` query heads share a key head; `table_batches` and `seed_batches` batch entries share a table and a seed.
    """
    blocks = (queries + BLOCK_M - 1) // BLOCK_M
    plane = tl.program_id(0) // blocks
    row_start = (blocks - 1 - tl.program_id(0) % blocks) * BLOCK_M
    batch = plane // heads
    head = plane % heads
    wide_batch = tl.cast(batch, tl.int64)
    wide_head = tl.cast(head, tl.int64)
    key_head = (head // groups).to(tl.int64)
    key_count = keys
    if LENGTHS:
        key_count = tl.minimum(tl.maximum(tl.load(lengths_ptr + batch).to(tl.int32), 0), keys)
    seed = 0
    table = table_ptr
    if DROPOUT:
        seed = tl.load(seed_ptr + batch // seed_batches).to(tl.uint32)
    if BIAS:
        table = table_ptr + (wide_batch // table_batches * heads + head) * (queries + keys - 1)

    shift = keys - queries
    stop = key_count
    plain = key_count  # keys below it are seen by every row of the block
    start = 0
    if CAUSAL:
        stop = tl.maximum(tl.minimum(stop, tl.minimum(row_start + BLOCK_M, queries) + shift), 0)
        plain = tl.maximum(tl.minimum(plain, row_start + shift + 1), 0)
    plain = plain // BLOCK_N * BLOCK_N
    if WINDOW:
        start = tl.maximum(row_start + shift - window + 1, 0) // BLOCK_N * BLOCK_N
        plain = start

    q = load_rows(
        q_ptr + wide_batch * q_batch + wide_head * q_head, row_start, queries, q_row, BLOCK_M, HEAD_DIM, BLOCK_D
    )
    k_here = k_ptr + wide_batch * k_batch + key_head * k_head
    v_here = v_ptr + wide_batch * v_batch + key_head * v_head
    acc = tl.full([BLOCK_M, BLOCK_D], 0.0, tl.float32)
    norm = tl.full([BLOCK_M], 0.0, tl.float32)
    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    log2_scale = scale * 1.4426950408889634
    mask_plane = batch % seed_batches * heads + head
    if not WINDOW:
        acc, norm, peak = forward_span(
            acc, norm, peak, q, k_here, v_here, table, seed, mask_plane, row_start, start, plain, queries, keys,
            key_count, window, k_row, v_row, log2_scale, threshold, keep_scale,
            HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, CAUSAL, WINDOW, BIAS, DROPOUT, False, UPCAST,
        )  # fmt: skip
    acc, norm, peak = forward_span(
        acc, norm, peak, q, k_here, v_here, table, seed, mask_plane, row_start, plain, stop, queries, keys,
        key_count, window, k_row, v_row, log2_scale, threshold, keep_scale,
        HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, CAUSAL, WINDOW, BIAS, DROPOUT, True, UPCAST,
    )  # fmt: skip

    some = norm > 0.0
    acc = acc / tl.where(some, norm, 1.0)[:, None]
    out_here = out_ptr + wide_batch * out_batch + wide_head * out_head
    store_rows(out_here, row_start, queries, out_row, acc, BLOCK_M, HEAD_DIM, BLOCK_D)
    rows = row_start + tl.arange(0, BLOCK_M)
    lse = tl.where(some, (peak + tl.math.log2(tl.where(some, norm, 1.0))) * 0.6931471805599453, float("-inf"))
    tl.store(lse_ptr + plane.to(tl.int64) * queries + rows, lse, mask=rows < queries)
