"""Tests of the Triton kernels, interpreted on the CPU, against float64; and of the operators that PyTorch sees."""

import itertools

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from trans4init.kernels.attention import RelativeBias, attention, launch
from trans4init.kernels.attention.configurations import INTERPRETED, Tile
from trans4init.kernels.attention.launch import HEAD_DIMS, Inputs
from trans4init.kernels.attention.reference import Options, draw_seed, kept, visible
from trans4init.kernels.attention.registration import as_arguments, attention_backward, attention_forward
from trans4init.kernels.attention.streamed import streamed_attention

# Caps on the relative RMS error; the rounding of a sum of n float32 products and of the result are added.
RELATIVE_RMS = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
BORDERS = [
    step * side + shift for side in (INTERPRETED.queries, INTERPRETED.keys) for step in (1, 2) for shift in (-1, 0, 1)
]
DTYPES = list(RELATIVE_RMS)
LARGEST: dict[tuple[str, str], tuple[float, float]] = {}
CALLS: list[str] = []


@pytest.fixture(autouse=True, scope="module")
def poisoned_outputs():
    """Fill every torch.empty with NaN, so that a place which no kernel writes shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture(autouse=True, scope="module")
def print_largest_errors():
    yield
    print(f"\n{len(CALLS)} calls; largest relative RMS error (and eager's in that call), against float64")
    for (dtype, name), (error, eager) in sorted(LARGEST.items()):
        print(f"{dtype:8s} {name:6s} {error:.1e} ({eager:.1e})")


def draw_inputs(batch, heads, kv_heads, queries, keys, width, dtype, seed=0):
    """Draw q, k, v, a table and the output's gradient, rounded to `dtype`; strides are those of [B, L, H, D]."""
    generator = torch.Generator().manual_seed(seed)

    def tensor(count, length):
        return torch.randn(batch, length, count, width, generator=generator).to(dtype).transpose(1, 2)

    table = torch.randn(heads, queries + keys - 1, generator=generator)
    return [tensor(heads, queries), tensor(kv_heads, keys), tensor(kv_heads, keys), table], tensor(heads, queries)


def run(inputs, out_grad, biased, dtype=None, function=None, **options):
    """Return output and gradients of a call, in `dtype` if it is given; the dropout seed is always the same.

    function: what is called in place of `attention`, with a table in place of the bias.
    """
    inputs = [tensor.detach() for tensor in inputs]
    if dtype is not None:
        inputs = [tensor.to(dtype) for tensor in inputs]
    inputs = [tensor.requires_grad_() for tensor in inputs[: 4 if biased else 3]]
    torch.manual_seed(0)
    if function is not None:
        out = function(*inputs, **options)
    else:
        out = attention(*inputs[:3], bias=RelativeBias(inputs[3]) if biased else None, **options)
    gradients = torch.autograd.grad(out, inputs, out_grad.to(out.dtype))
    return dict(zip(("out", "dq", "dk", "dv", "dtable"), (out, *gradients), strict=False))


def stream(q, k, v, table=None, *, causal=False, window=None, key_lengths=None, scale=None):
    """Call `streamed_attention`, which has the kernels' formula, with a bias of zeros where there is no table."""
    if table is None:
        table = torch.zeros(q.shape[1], q.shape[2] + k.shape[2] - 1)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return streamed_attention(q, k, v, table, key_lengths, Options(causal, window, scale))[0]


def eager(
    q,
    k,
    v,
    table=None,
    *,
    causal=False,
    window=None,
    key_lengths=None,
    query_lengths=None,
    scale=None,
    softcap=None,
    dropout_p=0.0,
):
    """Attend in PyTorch as models do: products in the inputs' dtype, softmax in float32, weights rounded again."""
    queries, keys, groups = q.shape[2], k.shape[2], q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scores = (q @ k.transpose(-1, -2)).float() * (q.shape[-1] ** -0.5 if scale is None else scale)
    scores = scores if softcap is None else softcap * (scores / softcap).tanh()
    scores = scores if table is None else scores + RelativeBias(table).dense(queries, keys)
    lengths = {"key_lengths": key_lengths, "query_lengths": query_lengths}
    seen = visible(queries, keys, causal=causal, window=window, device=q.device, **lengths)
    weights = scores.masked_fill(~seen, -1e9).softmax(-1).masked_fill(~seen, 0.0)
    if dropout_p:
        keep = kept(draw_seed(q.device), *q.shape[:3], keys, dropout_p)
        weights = weights.masked_fill(~keep, 0.0) / (1 - dropout_p)
    return weights.to(v.dtype) @ v


def eager_errors(inputs, out_grad, biased, exact, options):
    """Return the largest errors of eager PyTorch, by name: as models write it, and by the kernels' formula in chunks.

    Each is computed with the head's dimensions in several orders, which change nothing but rounding: in one order it
    may be exact by chance, and with a single key the first one's table gradient always is.
    """
    width = inputs[0].shape[-1]
    asked = {name: value for name, value in options.items() if value is not None and name != "deterministic"}
    if asked.get("dropout_p") == 0:
        del asked["dropout_p"]
    orders = [
        torch.arange(width),
        *(torch.randperm(width, generator=torch.Generator().manual_seed(n)) for n in (1, 2, 3)),
    ]
    streamable = asked.keys() <= {"causal", "window", "key_lengths", "scale"}
    functions = [eager, stream] if streamable else [eager]
    errors = dict.fromkeys(exact, 0.0)
    for order, function in itertools.product(orders, functions):
        reordered = [tensor[..., order] for tensor in inputs[:3]] + inputs[3:]
        for name, value in run(reordered, out_grad[..., order], biased, function=function, **asked).items():
            in_place = value if name == "dtable" else value[..., order.argsort()]
            errors[name] = max(errors[name], rms(in_place.double() - exact[name]))
    return errors


def rms(tensor):
    return tensor.double().square().mean().sqrt().item()


def assert_as_good_as_eager(inputs, out_grad, biased, **options):
    """Assert an error against float64 of at most twice eager PyTorch's in the same dtype, and below a cap."""
    dtype = inputs[0].dtype
    exact = run(inputs, out_grad, biased, torch.float64, impl="reference", **options)
    eager = eager_errors(inputs, out_grad, biased, exact, options)
    actual = run(inputs, out_grad, biased, impl="triton", **options)
    single = 4 * torch.finfo(torch.float32).eps * max(inputs[0].shape[2], inputs[1].shape[2]) ** 0.5
    rounding = torch.finfo(dtype).eps / 2
    CALLS.append(str(options))
    for name, expected in exact.items():
        error, of_eager, size = rms(actual[name].double() - expected), eager[name], rms(expected)
        assert of_eager <= 2 * RELATIVE_RMS[dtype] * size + 4 * single, f"eager's {name}"
        assert torch.isfinite(actual[name]).all(), name
        assert error <= 2 * of_eager + rounding * size + single, name
        if size > single:  # a value that is 0 except for rounding has no relative error: it is held to eager's alone
            assert error <= RELATIVE_RMS[dtype] * size + single, name
        key = (str(dtype).removeprefix("torch."), name)
        if size > 1e-3:  # a value near 0 has no relative error
            LARGEST[key] = max(LARGEST.get(key, (0.0, 0.0)), (error / size, of_eager / size))


def lengths_of(longest, batch):
    return st.none() | st.lists(st.integers(0, longest), min_size=batch, max_size=batch).map(torch.tensor)


@st.composite
def calls(draw):
    length = st.integers(1, 70) | st.sampled_from(BORDERS)
    queries, keys = draw(length), draw(length)
    kv_heads, batch = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 2]))
    heads = kv_heads * draw(st.sampled_from([1, 2]))
    width, dtype = draw(st.sampled_from(HEAD_DIMS)), draw(st.sampled_from(DTYPES))
    inputs, out_grad = draw_inputs(batch, heads, kv_heads, queries, keys, width, dtype, draw(st.integers(0, 99)))
    options = {
        "causal": draw(st.booleans()),
        "window": draw(st.none() | st.integers(1, 80) | st.tuples(st.integers(0, 70), st.integers(0, 70))),
        "key_lengths": draw(lengths_of(keys, batch)),
        "query_lengths": draw(lengths_of(queries, batch)),
        "scale": draw(st.sampled_from([None, 0.3, -0.2, 0.0])),
        "softcap": draw(st.sampled_from([None, None, 1.5, 30.0])),
        "dropout_p": draw(st.sampled_from([0.0, 0.0, 0.4])),
        "deterministic": draw(st.booleans()),
    }
    return inputs, out_grad, draw(st.sampled_from([True, True, False])), options


# Shrinking a failure would take minutes in the interpreter.
@settings(
    deadline=None,
    max_examples=12,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(calls())
def test_every_combination_is_as_good_as_eager(call):
    inputs, out_grad, biased, options = call
    assert_as_good_as_eager(inputs, out_grad, biased, **options)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (5, 17), (113, 203), (239, 1)])
def test_odd_shapes_are_as_good_as_eager(queries, keys, dtype):
    inputs, out_grad = draw_inputs(1, 1, 1, queries, keys, 16, dtype)
    assert_as_good_as_eager(inputs, out_grad, True, deterministic=dtype == torch.bfloat16)


@pytest.mark.parametrize(("queries", "keys"), [(50, 43), (43, 50)])
def test_a_diagonal_that_crosses_block_corners_is_masked_right(queries, keys):
    inputs, out_grad = draw_inputs(1, 1, 1, queries, keys, 16, torch.float32)
    assert_as_good_as_eager(inputs, out_grad, True, causal=True)


def test_the_deterministic_table_gradient_has_the_corners_of_its_blocks():
    """Offsets that only one corner of a block reaches count at both ends of what is visible; and heads share keys."""
    inputs, out_grad = draw_inputs(1, 4, 2, 40, 41, 16, torch.float32)
    assert_as_good_as_eager(inputs, out_grad, True, causal=True, window=3, deterministic=True)
    inputs, out_grad = draw_inputs(1, 2, 1, 40, 40, 16, torch.float32)
    assert_as_good_as_eager(inputs, out_grad, True, window=(2, 1), deterministic=True)


@pytest.mark.parametrize("deterministic", [False, True])
def test_entries_that_share_a_table_and_a_seed_are_as_a_call_of_their_own(deterministic):
    """Two tables and two seeds serve four batch entries, in the output and in every gradient."""
    (q, k, v, table), out_grad = draw_inputs(4, 2, 1, 20, 18, 16, torch.float32)
    tables, seeds, lengths = torch.stack([table, table.flip(1)]), torch.tensor([7, 8]), torch.tensor([18, 5, 9, 18])
    options = Options(True, None, 0.25, 0.5, deterministic)

    def call(entries, members):
        tensors = q[entries], k[entries], v[entries], tables[members], lengths[entries], None, seeds[members]
        inputs = Inputs(*tensors, options)
        out, lse = launch.launch_forward(inputs)
        gradients = launch.launch_backward(out_grad[entries], torch.ones_like(lse), out, lse, inputs, True)
        return out, lse, *gradients

    halves = call(slice(0, 2), slice(0, 1)), call(slice(2, 4), slice(1, 2))
    for whole, *parts in zip(call(slice(0, 4), slice(0, 2)), *halves, strict=True):
        assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize("deterministic", [False, True])
def test_lengths_past_the_end_are_all_there_is_and_below_zero_none(deterministic):
    inputs, out_grad = draw_inputs(3, 1, 1, 9, 7, 16, torch.float32)
    of_keys, of_queries = torch.tensor([9, -3, 5]), torch.tensor([4, 5, 12])
    clamped = of_keys.clamp(0, 7), of_queries.clamp(0, 9)
    options = {"causal": True, "impl": "triton", "deterministic": deterministic}
    actual, expected = (
        run(inputs, out_grad, True, key_lengths=key_lengths, query_lengths=query_lengths, **options)
        for key_lengths, query_lengths in ((of_keys, of_queries), clamped)
    )
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (45, 50), (37, 1)])
def test_lengths_windows_and_a_softcap_are_as_good_as_eager_at_odd_shapes(queries, keys, deterministic):
    """The second entry has a query and a key less than a block, or none."""
    inputs, out_grad = draw_inputs(2, 2, 1, queries, keys, 16, torch.float32)
    lengths = {
        "key_lengths": torch.tensor([keys, min(keys - 1, 17)]),
        "query_lengths": torch.tensor([max(queries - 6, 1), min(queries - 1, 31)]),
    }
    options = {"window": (9, 3), "softcap": 0.6, "deterministic": deterministic}
    assert_as_good_as_eager(inputs, out_grad, True, **lengths, **options)


@pytest.mark.parametrize("deterministic", [False, True])
def test_what_lies_in_queries_that_are_not_real_has_no_effect(deterministic):
    """Not even NaN, in the output or in any gradient."""
    inputs, out_grad = draw_inputs(2, 1, 1, 40, 9, 16, torch.float32)
    query_lengths = torch.tensor([35, 3])
    options = {"query_lengths": query_lengths, "impl": "triton"}
    expected = run(inputs, out_grad, True, **options, deterministic=deterministic)
    padding = torch.arange(40)[:, None] >= query_lengths[:, None, None, None]
    inputs[0] = inputs[0].masked_fill(padding, torch.nan)
    actual = run(inputs, out_grad.masked_fill(padding, torch.nan), True, **options, deterministic=deterministic)
    levels = attention(*inputs[:3], **options, return_lse=True)[1]
    assert torch.equal(levels == -torch.inf, padding[..., 0])
    assert expected["out"].masked_select(padding).abs().max() == 0
    assert expected["dq"].masked_select(padding).abs().max() == 0
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("deterministic", [False, True])
def test_biases_in_the_hundreds_overflow_nothing(deterministic):
    """Beyond the last query the bias alone is the score, and no maximum is subtracted before its exponential."""
    inputs, out_grad = draw_inputs(1, 1, 1, 40, 40, 16, torch.float32)
    inputs[3] += 200
    actual = run(inputs, out_grad, True, impl="triton", deterministic=deterministic)
    assert all(torch.isfinite(values).all() for values in actual.values())


@pytest.mark.parametrize("scale", [40.0, -40.0])
def test_scores_in_the_hundreds_overflow_nothing(scale):
    """The largest score is subtracted before the exponential; with a negative scale it has the smallest product."""
    inputs, out_grad = draw_inputs(1, 1, 1, 40, 40, 16, torch.float16)
    exact = run(inputs, out_grad, False, torch.float64, impl="reference", scale=scale)["out"]
    actual = run(inputs, out_grad, False, impl="triton", scale=scale)
    assert rms(actual["out"].double() - exact) <= 1e-2 * rms(exact)
    assert all(torch.isfinite(values).all() for values in actual.values())


@pytest.mark.parametrize("tile", [Tile(64, 16, 1, 1), Tile(32, 32, 1, 1)], ids=str)
def test_other_tiles_compute_the_same(tile, monkeypatch):
    """The table's gradient cuts a tile into a pile of squares: four here, and one."""
    monkeypatch.setattr(launch, "INTERPRETED", tile)
    inputs, out_grad = draw_inputs(1, 1, 1, 90, 101, 16, torch.float32)
    assert_as_good_as_eager(inputs, out_grad, True, causal=True, window=40)


def test_offsets_pass_two_to_the_31(tmp_path):
    """In a sparse file, of which only the pages of four matrices exist: the last begins at entry 3 · 2³⁰."""
    size, apart = 3 * 2**30 + 4096, 2**30
    (tmp_path / "sparse").touch()
    far = torch.from_file(str(tmp_path / "sparse"), shared=True, size=size, dtype=torch.float16)
    (q, k, v, table), out_grad = draw_inputs(4, 1, 1, 9, 7, 16, torch.float16)

    def spread_out(tensor, start):
        view = far.as_strided(tensor.shape, (apart, 1, 16, 1), start)
        return view.copy_(tensor)

    near, places = [q, k, v, out_grad], (0, 256, 512, 768)
    *leaves, distant = [spread_out(tensor, start) for tensor, start in zip(near, places, strict=True)]
    options = {"causal": True, "impl": "triton", "deterministic": True}
    expected = run([q, k, v, table], out_grad, True, **options)
    inputs = Inputs(*leaves, table[None], None, None, None, Options(True, None, 0.25, deterministic=True))
    out, lse = launch.launch_forward(inputs)
    actual = launch.launch_backward(distant, torch.zeros_like(lse), out, lse, inputs, True)
    for name, gradient in zip(expected, (out, *actual[:3], actual[3][0]), strict=True):
        assert torch.equal(gradient, expected[name]), name


@pytest.mark.parametrize("deterministic", [False, True])
def test_no_kernel_touches_memory_outside_its_tensors(deterministic, monkeypatch):
    """Not even to add 0, where blocks reach past the last query, the last key or the head's width."""
    from triton.runtime.interpreter import interpreter_builder

    storages, launched, touches = [], launch._launch, []

    def remember_storages(*call):
        tensors = [value for value in call[-1].values() if isinstance(value, torch.Tensor)]
        storages[:] = [(tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()) for tensor in tensors]
        launched(*call)

    def watch(method, pointers, mask):
        access = getattr(interpreter_builder, method)

        def watched(*arguments):
            touched = arguments[pointers].data[arguments[mask].data]
            inside = [(touched >= start) & (touched < start + size) for start, size in storages]
            assert sum(inside).all(), (method, touched)
            touches.append(method)
            return access(*arguments)

        monkeypatch.setattr(interpreter_builder, method, watched)

    monkeypatch.setattr(launch, "_launch", remember_storages)
    accesses = {"create_masked_load": (0, 1), "create_masked_store": (0, 2), "create_atomic_rmw": (1, 3)}
    for method, places in accesses.items():
        watch(method, *places)
    inputs, out_grad = draw_inputs(2, 1, 1, 40, 43, 80, torch.float16)
    options = {"key_lengths": torch.tensor([43, 43]), "query_lengths": torch.tensor([40, 40])}
    options |= {"dropout_p": 0.5, "deterministic": deterministic}
    run(inputs, out_grad, True, impl="triton", **options)
    assert set(touches) == set(accesses)


def test_rows_too_far_apart_for_32_bits_are_copied():
    far = torch.empty_strided((1, 1, 2, 16), (0, 0, 2**23, 1), device="meta")
    assert launch.dense_rows(far).is_contiguous()
    near = torch.empty_strided((1, 1, 2, 16), (0, 0, 2**22, 1), device="meta")
    assert launch.dense_rows(near) is near


def test_the_log_sum_exp_and_its_gradient_are_exact():
    inputs, _ = draw_inputs(1, 2, 1, 33, 20, 16, torch.float32)
    results = {}
    for impl, dtype in (("reference", torch.float64), ("triton", torch.float32)):
        leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in inputs]
        _, lse = attention(*leaves[:3], bias=RelativeBias(leaves[3]), return_lse=True, impl=impl)
        results[impl] = (lse, *torch.autograd.grad((lse * torch.arange(33)).sum(), [leaves[0], leaves[1], leaves[3]]))
    for exact, actual in zip(results["reference"], results["triton"], strict=True):
        torch.testing.assert_close(actual.double(), exact, rtol=1e-5, atol=1e-4)


def test_dropout_keeps_its_share_and_the_seed_decides():
    keep = kept(torch.tensor([7]), 2, 3, 64, 64, 0.25)
    assert abs(keep.float().mean().item() - 0.75) < 0.01
    assert (keep[0, 0] != keep[0, 1]).any()
    assert not torch.equal(keep, kept(torch.tensor([8]), 2, 3, 64, 64, 0.25))
    (q, k, v, _), _ = draw_inputs(1, 1, 1, 20, 20, 16, torch.float32)
    runs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        runs.append(attention(q, k, v, dropout_p=0.5, impl="triton"))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert attention(q, k, v, dropout_p=1.0, impl="triton").abs().max() == 0


def test_the_deterministic_table_gradient_does_not_depend_on_the_order_of_programs(monkeypatch):
    """The same bits with the programs run backwards, where sums in another order would differ."""
    from triton.runtime.interpreter import interpreter_builder

    inputs, out_grad = draw_inputs(2, 1, 1, 70, 60, 16, torch.float32)
    forwards = run(inputs, out_grad, True, impl="triton", deterministic=True)
    set_index = interpreter_builder.set_grid_idx

    def from_the_end(x, y, z):
        set_index(interpreter_builder.grid_dim[0] - 1 - x, y, z)

    monkeypatch.setattr(interpreter_builder, "set_grid_idx", from_the_end)
    backwards = run(inputs, out_grad, True, impl="triton", deterministic=True)
    for name, gradient in forwards.items():
        assert torch.equal(gradient, backwards[name]), name
    atomic = run(inputs, out_grad, True, impl="triton")["dtable"]
    monkeypatch.undo()
    assert not torch.equal(atomic, run(inputs, out_grad, True, impl="triton")["dtable"])


def test_members_of_a_vmap_have_tables_of_their_own():
    """vmap over values and tables, over tables alone, and its gradients, against a loop."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, 2, 9, 16, generator=generator) for _ in range(3))
    tables, lengths = torch.randn(2, 2, 17, generator=generator), torch.tensor([6, 9])

    def loss(q, k, v, table):
        options = {"causal": True, "query_lengths": lengths, "softcap": 2.0, "impl": "triton"}
        return attention(q, k, v, bias=RelativeBias(table), **options).square().sum()

    derive = torch.func.grad(loss, argnums=(0, 1, 2, 3))
    for dims in ((0, 0, 0, 0), (None, None, None, 0), (0, 0, 0, None)):
        call = [t if dim == 0 else t[0] for t, dim in zip((q, k, v, tables), dims, strict=True)]
        actual = torch.func.vmap(derive, in_dims=dims)(*call)
        for member in range(2):
            alone = derive(*(t[member] if dim == 0 else t for t, dim in zip(call, dims, strict=True)))
            for a, b in zip(actual, alone, strict=True):
                torch.testing.assert_close(a[member], b, rtol=1e-4, atol=1e-5)


def test_a_query_with_a_nan_makes_its_own_row_nan():
    [q, k, v, _], _ = draw_inputs(1, 1, 1, 5, 7, 16, torch.float32)
    q[0, 0, 2, 3] = torch.nan
    out, lse = attention(q, k, v, impl="triton", return_lse=True)
    expected, levels = attention(q, k, v, impl="reference", return_lse=True)
    for actual, right in ((out, expected), (lse, levels)):
        torch.testing.assert_close(actual, right, equal_nan=True, rtol=1e-5, atol=1e-5)
    assert lse[0, 0].isnan().tolist() == [False, False, True, False, False]


def test_a_length_of_keys_beyond_32_bits_is_all_of_them():
    [q, k, v, _], _ = draw_inputs(2, 1, 1, 5, 7, 16, torch.float32)
    expected = attention(q, k, v, impl="triton")
    assert torch.equal(attention(q, k, v, impl="triton", key_lengths=torch.tensor([2**40, 7])), expected)


@pytest.mark.parametrize(("randomness", "alike"), [("same", True), ("different", False)])
def test_dropout_under_vmap_follows_its_randomness(randomness, alike):
    (q, k, v, _), _ = draw_inputs(1, 2, 2, 9, 9, 16, torch.float32)
    stack = torch.func.vmap(lambda q: attention(q, k, v, dropout_p=0.5, impl="triton"), randomness=randomness)
    first, second = stack(torch.stack([q, q]))
    assert torch.equal(first, second) == alike


@pytest.mark.parametrize("biased", [True, False])
def test_the_operators_pass_opcheck(biased):
    inputs, out_grad = draw_inputs(1, 2, 1, 5, 7, 16, torch.float32)
    q, k, v, table = [tensor.detach().requires_grad_() for tensor in inputs]
    bias = table[None] if biased else None
    options = as_arguments(Options(True, (4, 9), 0.25, softcap=2.0))
    call = (q, k, v, bias, torch.tensor([6]), torch.tensor([4]), None, *options)
    torch.library.opcheck(attention_forward, call)
    out, lse = (tensor.detach() for tensor in attention_forward(*call))
    torch.library.opcheck(
        attention_backward,
        (
            out_grad,
            torch.zeros_like(lse),
            out,
            lse,
            *(t if t is None else t.detach() for t in call[:7]),
            *call[7:],
            biased,
        ),
    )


def test_a_compiled_call_is_one_graph():
    inputs, out_grad = draw_inputs(1, 2, 1, 5, 7, 16, torch.float32)

    def call(*tensors, **options):
        return attention(*tensors[:3], bias=RelativeBias(tensors[3]), causal=True, impl="triton")

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    results = []
    for function in (call, compiled):
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        out = function(*leaves)
        results.append([out, *torch.autograd.grad(out, leaves, out_grad)])
    for eager, traced in zip(*results, strict=True):
        assert torch.equal(eager, traced)


@pytest.mark.parametrize("impl", ["triton", "reference", "sdpa", "auto"])
def test_autocast_casts_queries_keys_and_values(impl):
    (q, k, v, table), _ = draw_inputs(1, 1, 1, 6, 6, 16, torch.float32)
    leaf = q.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(leaf, k, v, bias=RelativeBias(table), impl=impl)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert leaf.grad.dtype == torch.float32


def test_a_second_derivative_is_refused():
    inputs, out_grad = draw_inputs(1, 1, 1, 3, 3, 16, torch.float32)
    leaf = inputs[0].detach().requires_grad_()
    out = attention(leaf, *inputs[1:3], impl="triton")
    (gradient,) = torch.autograd.grad(out, leaf, out_grad.requires_grad_(), create_graph=True)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        gradient.sum().backward()


def test_a_head_dim_that_is_not_contiguous_is_read_right():
    (q, k, v, _), _ = draw_inputs(1, 1, 1, 6, 6, 16, torch.float32)
    odd = torch.stack([q, q.neg()], dim=-1)[..., 0]
    assert odd.stride(-1) == 2
    assert torch.equal(attention(odd, k, v, impl="triton"), attention(q, k, v, impl="triton"))
