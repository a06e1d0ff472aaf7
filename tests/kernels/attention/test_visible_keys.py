"""Tests of which query of `attention` sees which key: causal order, windows, and lengths of a padded batch."""

import itertools
import sys
from types import FunctionType, SimpleNamespace

import pytest
import torch

from trans4init.kernels.attention import RelativeBias, attention, launch
from trans4init.kernels.attention.reference import visible


def test_causal_aligns_the_ends():
    """One query on many keys stands at the last position, and sees all of them."""
    q, k, v = torch.randn(1, 1, 1, 4), torch.randn(1, 1, 6, 4), torch.randn(1, 1, 6, 4)
    torch.testing.assert_close(attention(q, k, v, causal=True), attention(q, k, v, causal=False))


@pytest.mark.parametrize("impl", ["reference", "sdpa"])
def test_a_query_without_keys_gives_zero_and_finite_gradients(impl):
    q, k, v = (torch.randn(2, 1, 4, 3, requires_grad=True) for _ in range(3))
    actual = attention(q, k, v, key_lengths=torch.tensor([4, 0]), impl=impl)
    assert actual[1].abs().max() == 0
    actual.sum().backward()
    assert all(torch.isfinite(tensor.grad).all() for tensor in (q, k, v))


@pytest.mark.parametrize("impl", ["reference", "sdpa", "auto", "triton"])
@pytest.mark.parametrize("window", [12, 2**31 - 1, sys.maxsize, (11, 0), (sys.maxsize, sys.maxsize)])
def test_a_window_as_wide_as_the_keys_hides_nothing(impl, window):
    """However wide it is: its sum with a position must not overflow an integer."""
    inputs = [torch.randn(1, 1, length, 16) for length in (20, 12, 12)]
    results = []
    for wide in (None, window):
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        out = attention(*leaves, causal=True, window=wide, impl=impl)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(("name", "side", "step"), [("keys_of_block", 4, 2), ("queries_of_block", 2, 4)])
def test_a_block_meets_once_all_that_it_sees_and_leaves_out_the_mask_where_all_is_seen(name, side, step):
    """In every small case. A program has `side` rows of the mask (or of its transpose) and walks along its columns."""
    # Called with integers, these functions need nothing of Triton but its maximum and minimum.
    code = launch.KERNELS.kernels(interpreted=False)[name].fn.__code__
    ranges = FunctionType(code, {"tl": SimpleNamespace(maximum=max, minimum=min)})
    sides = (None, 0, 1, 2, 5)
    for queries, keys, left, right, hidden in itertools.product(range(1, 9), range(1, 9), sides, sides, (0, 1, 5)):
        for shift in {keys - queries, keys - hidden - queries}:  # the ends of all keys are aligned, or of the real ones
            real = max(keys - hidden, 0)
            options = {"causal": False, "window": (left, right), "device": torch.device("cpu")}
            aligned = torch.tensor([queries]) if shift != keys - queries else None
            mask = visible(queries, keys, key_lengths=torch.tensor([real]), query_lengths=aligned, **options)[0, 0]
            mask = mask if name == "keys_of_block" else mask.T
            behind, ahead = shift - (left or 0), shift + (right or 0)
            for row in range(0, mask.shape[0], side):
                flags = {"LEFT": left is not None, "RIGHT": right is not None}
                start, first, last, stop = ranges(row, queries, real, behind, ahead, BLOCK_M=4, BLOCK_N=2, **flags)
                case = (queries, keys, real, shift, left, right), row, (start, first, last, stop)
                rows = mask[row : row + side]
                before, unmasked, after = range(start, first, step), range(first, last, step), range(last, stop, step)
                met = [tile + place for tile in (*before, *unmasked, *after) for place in range(step)]
                assert len(met) == len(set(met)), case
                assert min(met, default=0) >= 0, case
                assert set(rows.any(0).nonzero().flatten().tolist()) <= set(met) & set(range(start, stop)), case
                assert all(rows[:, tile : tile + step].all() for tile in unmasked), case
                if name == "keys_of_block":  # queries beyond the last one may be met, keys beyond the last one may not
                    assert all(tile + step <= real for tile in unmasked), case


@pytest.mark.parametrize("impl", ["reference", "sdpa", "flex", "triton", "auto"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_entries_of_their_own_lengths_are_calls_of_their_own(impl):
    """With query and key lengths an entry of a padded batch is the call with its real queries and keys alone."""
    q, k, v = torch.randn(3, 2, 7, 16), torch.randn(3, 2, 11, 16), torch.randn(3, 2, 11, 16)
    key_lengths, query_lengths = torch.tensor([11, 6, 4]), torch.tensor([5, 6, 7])
    for options in ({"causal": True}, {"window": 3}, {"window": (1, 2)}):
        lengths = {"key_lengths": key_lengths, "query_lengths": query_lengths}
        whole = attention(q, k, v, **lengths, **options, impl=impl)
        for entry, (keys, queries) in enumerate(zip(key_lengths.tolist(), query_lengths.tolist(), strict=True)):
            real = q[entry, :, :queries], k[entry, :, :keys], v[entry, :, :keys]
            alone = attention(*(tensor[None] for tensor in real), **options, impl="reference")
            torch.testing.assert_close(whole[entry, :, :queries], alone[0], rtol=1e-5, atol=1e-5)
            assert whole[entry, :, queries:].abs().sum() == 0


@pytest.mark.parametrize("impl", ["reference", "sdpa", "triton", "auto"])
def test_query_lengths_without_key_lengths_align_with_the_last_key(impl):
    q, k, v = torch.randn(2, 1, 5, 16), torch.randn(2, 1, 4, 16), torch.randn(2, 1, 4, 16)
    query_lengths = torch.tensor([2, 5])
    given = attention(q, k, v, causal=True, query_lengths=query_lengths, impl=impl)
    both = {"query_lengths": query_lengths, "key_lengths": torch.tensor([4, 4])}
    torch.testing.assert_close(given, attention(q, k, v, causal=True, **both, impl="reference"))
    assert given[0, :, 0].abs().min() > 0  # it stands at key 2, of which it sees three


@pytest.mark.parametrize("impl", ["reference", "sdpa", "flex", "auto"])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_values_may_have_a_head_dim_of_their_own(impl, biased):
    q, k, v = (torch.randn(2, heads, length, width) for heads, length, width in ((4, 5, 16), (2, 7, 16), (2, 7, 24)))
    bias = RelativeBias(torch.randn(4, 11)) if biased else None
    actual = attention(q, k, v, bias=bias, causal=True, impl=impl)
    parts = [attention(q, k, part, bias=bias, causal=True, impl="reference") for part in (v[..., :16], v[..., 8:])]
    torch.testing.assert_close(actual, torch.cat([parts[0], parts[1][..., 8:]], dim=-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("queries", "keys"), [(5, 9), (9, 5), (1, 7), (6, 6)])
def test_alibi_of_aligned_ends_is_a_table_that_is_shifted(queries, keys):
    """As flash-attention has it: -slope · |i + Lk - Lq - j|."""
    slopes = torch.tensor([0.5, 0.25])
    i, j = torch.arange(queries)[:, None], torch.arange(keys)
    aligned = -slopes[:, None, None] * (i + keys - queries - j).abs()
    table = -slopes[:, None] * (torch.arange(queries + keys - 1) - queries + 1).abs()
    assert torch.equal(RelativeBias(table).dense(queries, keys), aligned)
