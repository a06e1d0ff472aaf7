"""The Triton kernel of the forward pass, and the functions for one tile of scores that all passes share.

A tile holds BLOCK_M queries by BLOCK_N keys, or its transpose. Scores are kept in units of log 2, so that exp2 is the
only exponential. `README.md` derives each step; `backward_kernel.py` holds the gradients. Reductions go through
`tl.reduce`, for the reason that `kernels/interpretation.py` gives.
"""
# ruff: noqa: N803, N806, SIM108  (constants are upper case; Triton compiles only part of Python)
# mypy: ignore-errors

import triton
import triton.language as tl

__all__ = ["forward_kernel"]


@triton.jit
def row_maximum(x):
    """Return the largest entry of each row."""
    return tl.reduce(x, 1, tl.standard._elementwise_max)


@triton.jit
def row_sum(x):
    """Return the sum of each row."""
    return tl.reduce(x, 1, tl.standard._sum_combine)


@triton.jit
def multiply(a, b, UPCAST: tl.constexpr):
    """Return a @ b in float32, exact in float32 operands (no TF32). UPCAST: for bfloat16 in the interpreter, which
    multiplies it wrongly.
    """
    if UPCAST:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def load_rows(base, start, limit, stride, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Load rows [start, start + ROWS) of a [limit, HEAD_DIM] matrix as [ROWS, BLOCK_D], 0 outside of it."""
    row = tl.arange(0, ROWS)
    dim = tl.arange(0, BLOCK_D)
    here = base + tl.cast(start, tl.int64) * stride + row[:, None] * stride + dim[None, :]
    inside = (start + row < limit)[:, None]
    if HEAD_DIM != BLOCK_D:
        inside = inside & (dim < HEAD_DIM)[None, :]
    return tl.load(here, mask=inside, other=0.0)


@triton.jit
def store_rows(base, start, limit, stride, values, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr):
    """Store [ROWS, BLOCK_D] values to the rows of a [limit, HEAD_DIM] matrix from `start` on."""
    row = tl.arange(0, ROWS)
    dim = tl.arange(0, BLOCK_D)
    here = base + tl.cast(start, tl.int64) * stride + row[:, None] * stride + dim[None, :]
    inside = (start + row < limit)[:, None] & (dim < HEAD_DIM)[None, :]
    tl.store(here, values.to(base.dtype.element_ty), mask=inside)


@triton.jit
def mix(x):
    """Hash a uint32 by the bijection lowbias32 (C. Wellons)."""
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def kept(seed, plane, rows, columns, threshold):
    """Return which weights dropout keeps: a function of seed, batch entry and head (`plane`), query and key alone."""
    key = mix(mix(seed ^ mix(tl.cast(plane, tl.uint32))) + rows.to(tl.uint32))
    return (mix(key ^ mix(columns.to(tl.uint32))) >> 8) >= tl.cast(threshold, tl.uint32)


@triton.jit
def visible(rows, columns, key_count, behind, ahead, LEFT: tl.constexpr, RIGHT: tl.constexpr):
    """Return which query (`rows`) sees which key (`columns`): query i sees keys i + behind to i + ahead."""
    seen = columns < key_count
    if RIGHT:  # compared as a difference, rows and columns take five registers less
        seen = seen & (columns - rows <= ahead)
    if LEFT:
        seen = seen & (columns - rows >= behind)
    return seen


@triton.jit
def tanh(x):
    """Return tanh from one exponential of a negative number; near 0, where the quotient would cancel, from a series."""
    size = tl.abs(x)
    decay = tl.math.exp2(-2.8853900817779268 * size)
    square = x * x
    series = -1.3333333333e-1 + square * (5.3968253968e-2 - square * 2.1869488536e-2)
    near = size - size * square * (3.3333333333e-1 + square * series)
    return tl.where(x < 0, -1.0, 1.0) * tl.where(size < 0.25, near, (1.0 - decay) / (1.0 + decay))


@triton.jit
def load_strip(table, row_start, column_start, queries, keys, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Load the BLOCK_M + BLOCK_N - 1 table values that a tile needs, by ascending i - j, in units of log 2."""
    WIDTH: tl.constexpr = 2 * BLOCK_M if BLOCK_M > BLOCK_N else 2 * BLOCK_N
    entry = row_start - column_start + keys - BLOCK_N + tl.arange(0, WIDTH)
    inside = (entry >= 0) & (entry < queries + keys - 1)
    return tl.load(table + entry, mask=inside, other=0.0) * 1.4426950408889634


@triton.jit
def spread(strip, FIRST: tl.constexpr, SECOND: tl.constexpr, TRANSPOSED: tl.constexpr):
    """Return the strip's value for each entry of a tile: [BLOCK_M, BLOCK_N], or transposed [BLOCK_N, BLOCK_M]."""
    first = tl.arange(0, FIRST)[:, None]
    second = tl.arange(0, SECOND)[None, :]
    if TRANSPOSED:
        offset = second - first + (FIRST - 1)
    else:
        offset = first - second + (SECOND - 1)
    return tl.reshape(tl.gather(strip, tl.reshape(offset, [FIRST * SECOND]), 0), [FIRST, SECOND])


@triton.jit
def block_of_queries(heads, queries, BLOCK_M: tl.constexpr):
    """Return a program's plane (batch entry and head), batch entry, head and first query.

    The blocks of a head come from its last query to its first: under a causal mask those have the most keys.
    """
    blocks = (queries + BLOCK_M - 1) // BLOCK_M
    plane = tl.program_id(0) // blocks
    row_start = (blocks - 1 - tl.program_id(0) % blocks) * BLOCK_M
    return plane, plane // heads, plane % heads, row_start


@triton.jit
def matrix_of(base, batch, head, batch_stride, head_stride):
    """Return where the rows of a batch entry's head begin, in 64 bits, since head · length · dim can pass 2³¹."""
    return base + tl.cast(batch, tl.int64) * batch_stride + tl.cast(head, tl.int64) * head_stride


@triton.jit
def table_of(base, batch, head, heads, queries, keys, table_batches, BIAS: tl.constexpr):
    """Return where the table of a batch entry's head begins; `table_batches` entries share a table."""
    if BIAS:
        base = base + (tl.cast(batch, tl.int64) // table_batches * heads + head) * (queries + keys - 1)
    return base


@triton.jit
def real_lengths(lengths_ptr, query_lengths_ptr, batch, queries, keys, aligned, LENGTHS: tl.constexpr):
    """Return how many queries and keys of a batch entry are real, and at which key position its query 0 stands.

    aligned: 1 where there are query lengths; the last real query then stands at the last real key. 0 where there are
    none; the last query then stands at the last key, real or not.
    """
    row_count = queries
    key_count = keys
    shift = keys - queries
    if LENGTHS:
        key_count = tl.minimum(tl.maximum(tl.load(lengths_ptr + batch), 0), keys).to(tl.int32)
        row_count = tl.minimum(tl.maximum(tl.load(query_lengths_ptr + batch), 0), queries).to(tl.int32)
        row_count = tl.where(aligned != 0, row_count, queries)
        shift = tl.where(aligned != 0, key_count - row_count, shift)
    return row_count, key_count, shift


@triton.jit
def dropout_seed(seed_ptr, batch, seed_batches, DROPOUT: tl.constexpr):
    """Return the seed of a batch entry; `seed_batches` entries share a seed."""
    seed = 0
    if DROPOUT:
        seed = tl.load(seed_ptr + batch // seed_batches).to(tl.uint32)
    return seed


@triton.jit
def keys_of_block(
    row_start, row_count, key_count, behind, ahead,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
):  # fmt: skip
    """Return the keys [start, stop) that a block of queries sees; every query sees [first, last): no mask there."""
    start = 0
    first = 0
    last = key_count
    stop = key_count
    if RIGHT:
        stop = tl.maximum(tl.minimum(stop, tl.minimum(row_start + BLOCK_M, row_count) + ahead), 0)
        last = tl.maximum(tl.minimum(last, row_start + ahead + 1), 0)
    last = last // BLOCK_N * BLOCK_N
    if LEFT:
        start = tl.maximum(row_start + behind, 0) // BLOCK_N * BLOCK_N
        first = (tl.maximum(row_start + BLOCK_M - 1 + behind, 0) + BLOCK_N - 1) // BLOCK_N * BLOCK_N
        last = tl.maximum(last, start)
        first = tl.minimum(first, last)
    return start, first, last, stop


@triton.jit
def forward_span(
    acc, norm, peak, q, k_head, v_head, table, seed, plane, row_start, start, stop, queries, keys, key_count, behind,
    ahead, k_stride, v_stride, scale, softcap, threshold,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, BIAS: tl.constexpr, SOFTCAP: tl.constexpr, DROPOUT: tl.constexpr,
    MASK: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Fold the keys [start, stop) into a block of queries by the online softmax (Milakov and Gimelshein 2018).

    `scale` and `softcap` have the factor log2 e. `scale` is not negative: the largest score is that of the largest
    product.
    """
    rows = row_start + tl.arange(0, BLOCK_M)[:, None]
    for column_start in tl.range(start, stop, BLOCK_N):
        columns = column_start + tl.arange(0, BLOCK_N)[None, :]
        k = load_rows(k_head, column_start, keys, k_stride, BLOCK_N, HEAD_DIM, BLOCK_D)
        scores = multiply(q, tl.trans(k), UPCAST)  # [BLOCK_M, BLOCK_N]
        if BIAS or MASK or SOFTCAP:
            if SOFTCAP:
                scores = tanh(scores * (scale / softcap)) * softcap
            else:
                scores *= scale
            if BIAS:
                strip = load_strip(table, row_start, column_start, queries, keys, BLOCK_M, BLOCK_N)
                scores += spread(strip, BLOCK_M, BLOCK_N, False)
            if MASK:
                seen = visible(rows, columns, key_count, behind, ahead, LEFT, RIGHT)
                scores = tl.where(seen, scores, float("-inf"))
            highest = tl.maximum(peak, row_maximum(scores))
        else:  # scale the row's maximum; the product per score fuses with the subtraction below
            highest = tl.maximum(peak, row_maximum(scores) * scale)
            scores *= scale
        level = tl.where(highest == float("-inf"), 0.0, highest)  # before a row's first key, -inf - -inf would be NaN
        weights = tl.math.exp2(scores - level[:, None])
        shrink = tl.math.exp2(peak - level)
        norm = norm * shrink + row_sum(weights)
        if DROPOUT:
            weights = tl.where(kept(seed, plane, rows, columns, threshold), weights, 0.0)
        v = load_rows(v_head, column_start, keys, v_stride, BLOCK_N, HEAD_DIM, BLOCK_D)
        acc = acc * shrink[:, None] + multiply(weights.to(v.dtype), v, UPCAST)
        peak = highest
    return acc, norm, peak


@triton.jit
def forward_kernel(
    q_ptr, k_ptr, v_ptr, table_ptr, lengths_ptr, query_lengths_ptr, seed_ptr, out_ptr, lse_ptr,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, out_batch, out_head, out_row,
    heads, groups, queries, keys, table_batches, seed_batches, aligned, left, right, scale, softcap, threshold,
    keep_scale,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, BIAS: tl.constexpr, SOFTCAP: tl.constexpr, LENGTHS: tl.constexpr,
    DROPOUT: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Compute out and log-sum-exp of one block of queries of one head.

    `groups` query heads share a key head; `table_batches` and `seed_batches` batch entries share a table and a seed;
    with LEFT and RIGHT a query sees at most `left` keys before its own position and `right` after it; with SOFTCAP a
    score s is softcap · tanh(s / softcap); `scale` is not negative.
    """
    plane, batch, head, row_start = block_of_queries(heads, queries, BLOCK_M)
    row_count, key_count, shift = real_lengths(lengths_ptr, query_lengths_ptr, batch, queries, keys, aligned, LENGTHS)
    behind = shift - left
    ahead = shift + right
    if LENGTHS:  # a block without a real query sees no key
        key_count = tl.where(row_start < row_count, key_count, 0)
    seed = dropout_seed(seed_ptr, batch, seed_batches, DROPOUT)
    table = table_of(table_ptr, batch, head, heads, queries, keys, table_batches, BIAS)
    start, first, last, stop = keys_of_block(
        row_start, row_count, key_count, behind, ahead, BLOCK_M, BLOCK_N, LEFT, RIGHT
    )
    q_here = matrix_of(q_ptr, batch, head, q_batch, q_head)
    k_here = matrix_of(k_ptr, batch, head // groups, k_batch, k_head)
    v_here = matrix_of(v_ptr, batch, head // groups, v_batch, v_head)
    SINGLE: tl.constexpr = q_ptr.dtype.element_ty == tl.float32
    if SINGLE:  # one masked loop: without matrix units a mask costs nothing in comparison, and fewer registers are live
        last = start
    q = load_rows(q_here, row_start, row_count, q_row, BLOCK_M, HEAD_DIM, BLOCK_D)
    acc = tl.full([BLOCK_M, BLOCK_D], 0.0, tl.float32)
    norm = tl.full([BLOCK_M], 0.0, tl.float32)
    peak = tl.full([BLOCK_M], float("-inf"), tl.float32)
    # Part 0: the keys at the window's border; part 1: those that every query sees; part 2: the rest.
    for part in tl.static_range(2 if SINGLE else (0 if LEFT else 1), 3):
        acc, norm, peak = forward_span(
            acc, norm, peak, q, k_here, v_here, table, seed, batch % seed_batches * heads + head, row_start,
            start if part == 0 else (first if part == 1 else last),
            first if part == 0 else (last if part == 1 else stop),
            queries, keys, key_count, behind, ahead, k_row, v_row, scale * 1.4426950408889634,
            softcap * 1.4426950408889634, threshold,
            HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, LEFT, RIGHT, BIAS, SOFTCAP, DROPOUT, part != 1, UPCAST,
        )  # fmt: skip

    rows = row_start + tl.arange(0, BLOCK_M)
    if LENGTHS:  # a query that is not real was computed as a query of zeros
        norm = tl.where(rows < row_count, norm, 0.0)
        acc = tl.where((rows < row_count)[:, None], acc, 0.0)
    # NaN != 0 is true: a NaN row stays NaN, in the output and in the log-sum-exp that the backward pass reads.
    some = norm != 0.0
    acc = acc / tl.where(some, norm, 1.0)[:, None]
    if DROPOUT:
        acc *= keep_scale
    store_rows(
        matrix_of(out_ptr, batch, head, out_batch, out_head),
        row_start,
        queries,
        out_row,
        acc,
        BLOCK_M,
        HEAD_DIM,
        BLOCK_D,
    )
    lse = tl.where(some, (peak + tl.math.log2(tl.where(some, norm, 1.0))) * 0.6931471805599453, float("-inf"))
    tl.store(lse_ptr + plane.to(tl.int64) * queries + rows, lse, mask=rows < queries)
