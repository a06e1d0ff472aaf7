"""The Triton kernels of the gradients: of the queries, of the keys and values, and of the bias table.

They are in a file of their own because a call without gradients needs none of them. Each recomputes the weights of a
tile from the log-sum-exp, as FlashAttention does (Dao 2023, algorithm 2). The table's gradient is the sum of the
scores' gradient along each diagonal i - j; `README.md` derives how a tile is skewed so that a diagonal becomes a row.
"""
# ruff: noqa: N803, N806  (constants are upper case; Triton compiles only part of Python)
# mypy: ignore-errors

import triton
import triton.language as tl

from trans4init.kernels.attention.kernel import (
    block_of_queries,
    dropout_seed,
    kept,
    keys_of_block,
    load_rows,
    load_strip,
    matrix_of,
    multiply,
    real_lengths,
    row_sum,
    spread,
    store_rows,
    table_of,
    tanh,
    visible,
)

__all__ = ["key_gradient_kernel", "query_gradient_kernel", "row_terms_kernel", "table_gradient_kernel"]


@triton.jit
def load_row_terms(base, row_start, queries, BLOCK_M: tl.constexpr, EMPTY: tl.constexpr):
    """Load one float32 per query; EMPTY where there is no query."""
    rows = row_start + tl.arange(0, BLOCK_M)
    return tl.load(base + rows, mask=rows < queries, other=EMPTY)


@triton.jit
def add_diagonals(
    scores_grad, table_grad, row_start, column_start, queries, keys, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):
    """Add the diagonal sums of a [BLOCK_M, BLOCK_N] tile to the table's gradient; BLOCK_N divides BLOCK_M.

    The tile is a pile of squares. Rotating column n of a square up by n places, modulo BLOCK_N, brings each diagonal
    into one row: m - n = r from the entries that did not wrap, m - n = r - BLOCK_N from those that did. The entries
    that wrapped lie on the diagonals that the square above didn't wrap. Each table entry gets one addition.
    """
    SQUARES: tl.constexpr = BLOCK_M // BLOCK_N
    square = tl.arange(0, SQUARES)[:, None]
    row = tl.arange(0, BLOCK_N)[None, :]
    source = row[:, :, None] + tl.arange(0, BLOCK_N)[None, None, :]
    tile = tl.reshape(scores_grad, [SQUARES, BLOCK_N, BLOCK_N])
    turned = tl.broadcast_to(source & (BLOCK_N - 1), [SQUARES, BLOCK_N, BLOCK_N])
    skewed = tl.gather(tile, turned, 1)
    both = tl.join(tl.where(source < BLOCK_N, skewed, 0.0), tl.where(source < BLOCK_N, 0.0, skewed))
    sums, wrapped = tl.split(tl.reduce(both, 2, tl.standard._sum_combine))  # [SQUARES, BLOCK_N] each
    sums, wrapped = sums + 0.0, wrapped + 0.0  # without + 0.0 Triton 3.6's interpreter adds wrong places of a split
    if SQUARES > 1:
        below = tl.broadcast_to((square + 1) & (SQUARES - 1), [SQUARES, BLOCK_N])
        sums += tl.where(square < SQUARES - 1, tl.gather(wrapped, below, 0), 0.0)
    entry = row_start - column_start + keys - 1 + square * BLOCK_N + row
    last = queries + keys - 1
    tl.atomic_add(table_grad + entry, sums, mask=(entry >= 0) & (entry < last), sem="relaxed")
    entry -= BLOCK_N
    real = (entry >= 0) & (entry < last) & (square == 0) & (row > 0)
    tl.atomic_add(table_grad + entry, wrapped, mask=real, sem="relaxed")


@triton.jit
def row_terms_kernel(
    out_ptr, out_grad_ptr, lse_ptr, lse_grad_ptr, delta_ptr, level_ptr,
    out_batch, out_head, out_row, grad_batch, grad_head, grad_row, heads, queries,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Compute what the other passes need of each query: delta, and the log-sum-exp in units of log 2 as `level`.

    delta = rowsum(out · d out) - d lse is what the normalisation subtracts from each score's gradient. A query that
    sees no key has level +inf, so that its weights are 0.
    """
    plane, batch, head, row_start = block_of_queries(heads, queries, BLOCK_M)
    out_here = matrix_of(out_ptr, batch, head, out_batch, out_head)
    out_grad_here = matrix_of(out_grad_ptr, batch, head, grad_batch, grad_head)
    out = load_rows(out_here, row_start, queries, out_row, BLOCK_M, HEAD_DIM, BLOCK_D)
    out_grad = load_rows(out_grad_here, row_start, queries, grad_row, BLOCK_M, HEAD_DIM, BLOCK_D)
    rows = row_start + tl.arange(0, BLOCK_M)
    here = plane.to(tl.int64) * queries + rows
    delta = row_sum(out.to(tl.float32) * out_grad.to(tl.float32))
    delta -= tl.load(lse_grad_ptr + here, mask=rows < queries, other=0.0)
    tl.store(delta_ptr + here, delta, mask=rows < queries)
    lse = tl.load(lse_ptr + here, mask=rows < queries, other=0.0)
    level = tl.where(lse == float("-inf"), float("inf"), lse * 1.4426950408889634)
    tl.store(level_ptr + here, level, mask=rows < queries)


@triton.jit
def query_span(
    q_grad, q, out_grad, level, delta, k_head, v_head, table, table_grad, seed, plane, row_start, start, stop,
    queries, keys, key_count, behind, ahead, k_stride, v_stride, scale, softcap, threshold, keep_scale,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, BIAS: tl.constexpr, TABLE: tl.constexpr, SOFTCAP: tl.constexpr,
    DROPOUT: tl.constexpr, MASK: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Add the contribution of the keys [start, stop) to a block's query gradient, and with TABLE to the table's.

    disable_licm: in float32 whole rows of q would be hoisted out of the loop into registers, and spill.
    """
    rows = row_start + tl.arange(0, BLOCK_M)[:, None]
    for column_start in tl.range(start, stop, BLOCK_N, disable_licm=q.dtype == tl.float32):
        columns = column_start + tl.arange(0, BLOCK_N)[None, :]
        k = load_rows(k_head, column_start, keys, k_stride, BLOCK_N, HEAD_DIM, BLOCK_D)
        scores = multiply(q, tl.trans(k), UPCAST)  # [BLOCK_M, BLOCK_N]
        if SOFTCAP:
            capped = tanh(scores * (scale / softcap))
            scores = capped * (softcap * 1.4426950408889634)
        else:
            scores *= scale * 1.4426950408889634
        if BIAS:
            strip = load_strip(table, row_start, column_start, queries, keys, BLOCK_M, BLOCK_N)
            scores += spread(strip, BLOCK_M, BLOCK_N, False)
        weights = tl.math.exp2(scores - level[:, None])
        if MASK:
            seen = visible(rows, columns, key_count, behind, ahead, LEFT, RIGHT)
            weights = tl.where(seen, weights, 0.0)
        v = load_rows(v_head, column_start, keys, v_stride, BLOCK_N, HEAD_DIM, BLOCK_D)
        weights_grad = multiply(out_grad, tl.trans(v), UPCAST)
        if DROPOUT:
            weights_grad = tl.where(kept(seed, plane, rows, columns, threshold), weights_grad * keep_scale, 0.0)
        scores_grad = weights * (weights_grad - delta[:, None])
        if TABLE:
            add_diagonals(scores_grad, table_grad, row_start, column_start, queries, keys, BLOCK_M, BLOCK_N)
        if SOFTCAP:
            scores_grad *= 1.0 - capped * capped
        q_grad += multiply(scores_grad.to(k.dtype), k, UPCAST)
    return q_grad


@triton.jit
def query_gradient_kernel(
    q_ptr, k_ptr, v_ptr, table_ptr, lengths_ptr, query_lengths_ptr, seed_ptr, out_grad_ptr, level_ptr, delta_ptr,
    q_grad_ptr, table_grad_ptr,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    grad_batch, grad_head, grad_row, q_grad_batch, q_grad_head, q_grad_row,
    heads, groups, queries, keys, table_batches, seed_batches, aligned, left, right, scale, softcap, threshold,
    keep_scale,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, BIAS: tl.constexpr, TABLE: tl.constexpr, SOFTCAP: tl.constexpr,
    LENGTHS: tl.constexpr, DROPOUT: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Compute d q of one block of queries, and with TABLE the table's gradient by float32 atomics."""
    plane, batch, head, row_start = block_of_queries(heads, queries, BLOCK_M)
    row_count, key_count, shift = real_lengths(lengths_ptr, query_lengths_ptr, batch, queries, keys, aligned, LENGTHS)
    behind = shift - left
    ahead = shift + right
    if LENGTHS:  # a block without a real query sees no key
        key_count = tl.where(row_start < row_count, key_count, 0)
    seed = dropout_seed(seed_ptr, batch, seed_batches, DROPOUT)
    table = table_of(table_ptr, batch, head, heads, queries, keys, table_batches, BIAS)
    table_grad = table_of(table_grad_ptr, batch, head, heads, queries, keys, table_batches, TABLE)
    start, first, last, stop = keys_of_block(
        row_start, row_count, key_count, behind, ahead, BLOCK_M, BLOCK_N, LEFT, RIGHT
    )
    q_here = matrix_of(q_ptr, batch, head, q_batch, q_head)
    k_here = matrix_of(k_ptr, batch, head // groups, k_batch, k_head)
    v_here = matrix_of(v_ptr, batch, head // groups, v_batch, v_head)
    out_grad_here = matrix_of(out_grad_ptr, batch, head, grad_batch, grad_head)
    SINGLE: tl.constexpr = q_ptr.dtype.element_ty == tl.float32
    if SINGLE:  # one masked loop, as in the forward kernel
        last = start
    plane_start = plane.to(tl.int64) * queries
    q = load_rows(q_here, row_start, row_count, q_row, BLOCK_M, HEAD_DIM, BLOCK_D)
    out_grad = load_rows(out_grad_here, row_start, row_count, grad_row, BLOCK_M, HEAD_DIM, BLOCK_D)
    level = load_row_terms(level_ptr + plane_start, row_start, row_count, BLOCK_M, float("inf"))
    delta = load_row_terms(delta_ptr + plane_start, row_start, row_count, BLOCK_M, 0.0)
    q_grad = tl.full([BLOCK_M, BLOCK_D], 0.0, tl.float32)
    # Part 0: the keys at the window's border; part 1: those that every query sees; part 2: the rest.
    for part in tl.static_range(2 if SINGLE else (0 if LEFT else 1), 3):
        q_grad = query_span(
            q_grad, q, out_grad, level, delta, k_here, v_here, table, table_grad, seed,
            batch % seed_batches * heads + head, row_start,
            start if part == 0 else (first if part == 1 else last),
            first if part == 0 else (last if part == 1 else stop),
            queries, keys, key_count, behind, ahead, k_row, v_row, scale, softcap, threshold, keep_scale,
            HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, LEFT, RIGHT, BIAS, TABLE, SOFTCAP, DROPOUT, part != 1, UPCAST,
        )  # fmt: skip
    q_grad_here = matrix_of(q_grad_ptr, batch, head, q_grad_batch, q_grad_head)
    store_rows(q_grad_here, row_start, queries, q_grad_row, q_grad * scale, BLOCK_M, HEAD_DIM, BLOCK_D)


@triton.jit
def key_span(
    k_grad, v_grad, k, v, q_head, out_grad_head, level_head, delta_head, table, seed, plane, column_start, start, stop,
    queries, keys, row_count, key_count, behind, ahead, q_stride, grad_stride, scale, softcap, threshold, keep_scale,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, BIAS: tl.constexpr, SOFTCAP: tl.constexpr, DROPOUT: tl.constexpr,
    MASK: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Add the contribution of the queries [start, stop) of one head to a block's key and value gradients.

    Tiles are transposed. disable_licm: in float32 whole rows of k and v would be hoisted out of the loop into
    registers, and spill.
    """
    columns = column_start + tl.arange(0, BLOCK_N)[:, None]
    for row_start in tl.range(start, stop, BLOCK_M, disable_licm=k.dtype == tl.float32):
        rows = row_start + tl.arange(0, BLOCK_M)[None, :]
        q = load_rows(q_head, row_start, row_count, q_stride, BLOCK_M, HEAD_DIM, BLOCK_D)
        scores = multiply(k, tl.trans(q), UPCAST)  # [BLOCK_N, BLOCK_M]
        if SOFTCAP:
            capped = tanh(scores * (scale / softcap))
            scores = capped * (softcap * 1.4426950408889634)
        else:
            scores *= scale * 1.4426950408889634
        if BIAS:
            strip = load_strip(table, row_start, column_start, queries, keys, BLOCK_M, BLOCK_N)
            scores += spread(strip, BLOCK_N, BLOCK_M, True)
        level = load_row_terms(level_head, row_start, row_count, BLOCK_M, float("inf"))
        weights = tl.math.exp2(scores - level[None, :])
        if MASK:
            seen = visible(rows, columns, key_count, behind, ahead, LEFT, RIGHT)
            weights = tl.where(seen, weights, 0.0)
        out_grad = load_rows(out_grad_head, row_start, row_count, grad_stride, BLOCK_M, HEAD_DIM, BLOCK_D)
        weights_grad = multiply(v, tl.trans(out_grad), UPCAST)
        dropped = weights
        if DROPOUT:
            keep = kept(seed, plane, rows, columns, threshold)
            dropped = tl.where(keep, weights, 0.0)
            weights_grad = tl.where(keep, weights_grad * keep_scale, 0.0)
        v_grad += multiply(dropped.to(out_grad.dtype), out_grad, UPCAST)
        delta = load_row_terms(delta_head, row_start, row_count, BLOCK_M, 0.0)
        scores_grad = weights * (weights_grad - delta[None, :])
        if SOFTCAP:
            scores_grad *= 1.0 - capped * capped
        k_grad += multiply(scores_grad.to(q.dtype), q, UPCAST)
    return k_grad, v_grad


@triton.jit
def queries_of_block(
    column_start, row_count, key_count, behind, ahead,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
):  # fmt: skip
    """Return which queries see a block of keys: [start, stop), of which [first, last) see every key: no mask there."""
    start = 0
    first = 0
    last = row_count
    stop = row_count
    if RIGHT:
        start = tl.maximum(column_start - ahead, 0) // BLOCK_M * BLOCK_M
        first = (tl.maximum(column_start + BLOCK_N - 1 - ahead, 0) + BLOCK_M - 1) // BLOCK_M * BLOCK_M
    if LEFT:
        stop = tl.maximum(tl.minimum(stop, column_start + BLOCK_N - behind), start)
        last = tl.minimum(tl.maximum(column_start + 1 - behind, 0) // BLOCK_M * BLOCK_M, stop)
    if column_start + BLOCK_N > key_count:
        first = stop
    if column_start >= key_count:
        stop = start
    first = tl.minimum(first, stop)
    last = tl.maximum(tl.minimum(last, stop), first)
    return start, first, last, stop


@triton.jit
def key_gradient_kernel(
    q_ptr, k_ptr, v_ptr, table_ptr, lengths_ptr, query_lengths_ptr, seed_ptr, out_grad_ptr, level_ptr, delta_ptr,
    k_grad_ptr, v_grad_ptr,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    grad_batch, grad_head, grad_row, k_grad_batch, k_grad_head, k_grad_row,
    heads, groups, queries, keys, table_batches, seed_batches, aligned, left, right, scale, softcap, threshold,
    keep_scale,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, BIAS: tl.constexpr, SOFTCAP: tl.constexpr, LENGTHS: tl.constexpr,
    DROPOUT: tl.constexpr, UPCAST: tl.constexpr, GROUPED: tl.constexpr,
):  # fmt: skip
    """Compute d k and d v of one block of keys, summed over the query heads that share it; both have equal strides."""
    blocks = (keys + BLOCK_N - 1) // BLOCK_N
    key_heads = heads // groups
    key_plane = tl.program_id(0) // blocks
    column_start = (tl.program_id(0) % blocks) * BLOCK_N
    batch = key_plane // key_heads
    key_head = key_plane % key_heads
    row_count, key_count, shift = real_lengths(lengths_ptr, query_lengths_ptr, batch, queries, keys, aligned, LENGTHS)
    behind = shift - left
    ahead = shift + right
    seed = dropout_seed(seed_ptr, batch, seed_batches, DROPOUT)
    start, first, last, stop = queries_of_block(
        column_start, row_count, key_count, behind, ahead, BLOCK_M, BLOCK_N, LEFT, RIGHT
    )
    k_here = matrix_of(k_ptr, batch, key_head, k_batch, k_head)
    v_here = matrix_of(v_ptr, batch, key_head, v_batch, v_head)
    SINGLE: tl.constexpr = k_ptr.dtype.element_ty == tl.float32
    if SINGLE:  # one masked loop, as in the forward kernel
        first = stop
    k = load_rows(k_here, column_start, keys, k_row, BLOCK_N, HEAD_DIM, BLOCK_D)
    v = load_rows(v_here, column_start, keys, v_row, BLOCK_N, HEAD_DIM, BLOCK_D)
    k_grad = tl.full([BLOCK_N, BLOCK_D], 0.0, tl.float32)
    v_grad = tl.full([BLOCK_N, BLOCK_D], 0.0, tl.float32)
    for member in tl.range(0, groups if GROUPED else 1):
        head = key_head * groups + member
        plane_start = (tl.cast(batch, tl.int64) * heads + head) * queries
        table = table_of(table_ptr, batch, head, heads, queries, keys, table_batches, BIAS)
        q_here = matrix_of(q_ptr, batch, head, q_batch, q_head)
        out_grad_here = matrix_of(out_grad_ptr, batch, head, grad_batch, grad_head)
        # Part 0: the first queries that see the block; part 1: those that see all of it; part 2 (window): the last.
        for part in tl.static_range(0, 1 if SINGLE else (3 if LEFT else 2)):
            k_grad, v_grad = key_span(
                k_grad, v_grad, k, v, q_here, out_grad_here, level_ptr + plane_start, delta_ptr + plane_start, table,
                seed, batch % seed_batches * heads + head, column_start,
                start if part == 0 else (first if part == 1 else last),
                first if part == 0 else (last if part == 1 else stop),
                queries, keys, row_count, key_count, behind, ahead, q_row, grad_row, scale, softcap, threshold,
                keep_scale,
                HEAD_DIM, BLOCK_D, BLOCK_M, BLOCK_N, LEFT, RIGHT, BIAS, SOFTCAP, DROPOUT, part != 1, UPCAST,
            )  # fmt: skip
    if DROPOUT:
        v_grad *= keep_scale
    k_grad_here = matrix_of(k_grad_ptr, batch, key_head, k_grad_batch, k_grad_head)
    v_grad_here = matrix_of(v_grad_ptr, batch, key_head, k_grad_batch, k_grad_head)
    store_rows(k_grad_here, column_start, keys, k_grad_row, k_grad * scale, BLOCK_N, HEAD_DIM, BLOCK_D)
    store_rows(v_grad_here, column_start, keys, k_grad_row, v_grad, BLOCK_N, HEAD_DIM, BLOCK_D)


@triton.jit
def table_gradient_kernel(
    q_ptr, k_ptr, v_ptr, table_ptr, lengths_ptr, query_lengths_ptr, seed_ptr, out_grad_ptr, level_ptr, delta_ptr,
    table_grad_ptr,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, grad_batch, grad_head, grad_row,
    heads, groups, queries, keys, table_batches, seed_batches, aligned, left, right, scale, softcap, threshold,
    keep_scale,
    HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK: tl.constexpr,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, SOFTCAP: tl.constexpr, LENGTHS: tl.constexpr, DROPOUT: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """Compute the table's gradient, the same to the last bit each time: a program sums one diagonal of blocks.

    Along a diagonal of blocks a place in the block keeps its i - j, so the blocks of all batch entries that share the
    table are added before they are skewed. A table entry gets at most two additions in all, from neighbouring
    diagonals, and x + y is y + x: their order has no effect.
    """
    row_blocks = (queries + BLOCK - 1) // BLOCK
    column_blocks = (keys + BLOCK - 1) // BLOCK
    diagonals = row_blocks + column_blocks - 1
    diagonal = tl.program_id(0) % diagonals - (column_blocks - 1)
    head = tl.program_id(0) // diagonals % heads
    member = tl.program_id(0) // diagonals // heads
    batch_start = member * table_batches
    table = table_of(table_ptr, batch_start, head, heads, queries, keys, table_batches, True)
    table_grad = table_of(table_grad_ptr, batch_start, head, heads, queries, keys, table_batches, True)

    first = tl.maximum(diagonal, 0)
    last = tl.minimum(row_blocks, column_blocks + diagonal)
    offset = diagonal * BLOCK  # within a block of this diagonal, offset - BLOCK < i - j < offset + BLOCK
    strip = load_strip(table, offset, 0, queries, keys, BLOCK, BLOCK)
    bias = spread(strip, BLOCK, BLOCK, False)
    total = tl.full([BLOCK, BLOCK], 0.0, tl.float32)
    for batch in tl.range(batch_start, batch_start + table_batches):
        row_count, key_count, shift = real_lengths(
            lengths_ptr, query_lengths_ptr, batch, queries, keys, aligned, LENGTHS
        )
        behind = shift - left
        ahead = shift + right
        stop = last
        if RIGHT:
            stop = tl.where(offset + BLOCK - 1 < -ahead, first, stop)
        if LEFT:
            stop = tl.where(offset - BLOCK + 1 > -behind, first, stop)
        seed = dropout_seed(seed_ptr, batch, seed_batches, DROPOUT)
        plane_start = (tl.cast(batch, tl.int64) * heads + head) * queries
        q_here = matrix_of(q_ptr, batch, head, q_batch, q_head)
        k_here = matrix_of(k_ptr, batch, head // groups, k_batch, k_head)
        v_here = matrix_of(v_ptr, batch, head // groups, v_batch, v_head)
        out_grad_here = matrix_of(out_grad_ptr, batch, head, grad_batch, grad_head)
        for row_block in tl.range(first, stop):
            row_start = row_block * BLOCK
            column_start = row_start - offset
            rows = row_start + tl.arange(0, BLOCK)[:, None]
            columns = column_start + tl.arange(0, BLOCK)[None, :]
            q = load_rows(q_here, row_start, row_count, q_row, BLOCK, HEAD_DIM, BLOCK_D)
            k = load_rows(k_here, column_start, keys, k_row, BLOCK, HEAD_DIM, BLOCK_D)
            scores = multiply(q, tl.trans(k), UPCAST)
            if SOFTCAP:
                scores = tanh(scores * (scale / softcap)) * (softcap * 1.4426950408889634) + bias
            else:
                scores = scores * (scale * 1.4426950408889634) + bias
            level = load_row_terms(level_ptr + plane_start, row_start, row_count, BLOCK, float("inf"))
            weights = tl.math.exp2(scores - level[:, None])
            seen = visible(rows, columns, key_count, behind, ahead, LEFT, RIGHT)
            weights = tl.where(seen, weights, 0.0)
            v = load_rows(v_here, column_start, keys, v_row, BLOCK, HEAD_DIM, BLOCK_D)
            out_grad = load_rows(out_grad_here, row_start, row_count, grad_row, BLOCK, HEAD_DIM, BLOCK_D)
            weights_grad = multiply(out_grad, tl.trans(v), UPCAST)
            if DROPOUT:
                plane = batch % seed_batches * heads + head
                weights_grad = tl.where(kept(seed, plane, rows, columns, threshold), weights_grad * keep_scale, 0.0)
            delta = load_row_terms(delta_ptr + plane_start, row_start, row_count, BLOCK, 0.0)
            total += weights * (weights_grad - delta[:, None])
    add_diagonals(total, table_grad, offset, 0, queries, keys, BLOCK, BLOCK)
