"""Tests of `attention`: the specification against plain loops, and the implementations against each other."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from trans4init.kernels.attention import RelativeBias, attention, launch
from trans4init.kernels.attention.reference import Options
from trans4init.kernels.attention.streamed import streamed_attention

LENGTHS = st.integers(1, 9)
VALUE_DIMS = st.sampled_from([4, 4, 3])


def sees(i, j, queries, keys, causal, window, key_length, query_length):
    """Say whether query i sees key j of an entry with these lengths, None for all of its keys or queries."""
    end = i + keys - queries
    if query_length is not None:
        end = i + (keys if key_length is None else min(key_length, keys)) - min(query_length, queries)
    seen = (key_length is None or j < key_length) and (query_length is None or i < query_length)
    if isinstance(window, tuple):
        seen = seen and end - window[0] <= j and (window[1] is None or j <= end + window[1])
    elif window is not None:
        seen = seen and end - window < j
    return seen and (not causal or j <= end)


def by_the_book(q, k, v, bias, causal, window, key_lengths, query_lengths, scale, softcap):
    """Compute attention by its definition, entry by entry, in float64."""
    batch, heads, queries, _ = q.shape
    keys, groups = k.shape[2], heads // k.shape[1]
    out = torch.zeros(batch, heads, queries, v.shape[3], dtype=torch.float64)
    for b in range(batch):
        lengths = [None if lengths is None else lengths[b].item() for lengths in (key_lengths, query_lengths)]
        for h in range(heads):
            for i in range(queries):
                visible_keys = [j for j in range(keys) if sees(i, j, queries, keys, causal, window, *lengths)]
                if not visible_keys:
                    continue
                scores = []
                for j in visible_keys:
                    score = scale * (q[b, h, i] * k[b, h // groups, j]).sum()
                    score = score if softcap is None else softcap * torch.tanh(score / softcap)
                    scores.append(score + (bias.table[h, i - j + keys - 1] if bias is not None else 0.0))
                weights = torch.stack(scores).softmax(0)
                out[b, h, i] = sum(w * v[b, h // groups, j] for w, j in zip(weights, visible_keys, strict=True))
    return out


@st.composite
def calls(draw):
    queries, keys = draw(LENGTHS), draw(LENGTHS)
    kv_heads = draw(st.sampled_from([1, 2]))
    heads = kv_heads * draw(st.sampled_from([1, 3]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))

    def tensor(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    q, k, v = tensor(2, heads, queries, 4), tensor(2, kv_heads, keys, 4), tensor(2, kv_heads, keys, draw(VALUE_DIMS))
    options = {
        "causal": draw(st.booleans()),
        "window": draw(st.none() | st.integers(1, 6) | st.tuples(st.integers(0, 6), st.none() | st.integers(0, 6))),
        "key_lengths": draw(st.none() | st.just(torch.tensor([keys, draw(st.integers(0, keys))]))),
        "query_lengths": draw(st.none() | st.just(torch.tensor([draw(st.integers(0, queries)), queries + 1]))),
        "scale": draw(st.sampled_from([0.5, 1.0])),
        "softcap": draw(st.none() | st.sampled_from([0.7, 5.0])),
    }
    bias = RelativeBias(tensor(heads, queries + keys - 1)) if draw(st.booleans()) else None
    return q, k, v, bias, options


@settings(deadline=None, max_examples=40)
@given(calls())
def test_reference_is_the_definition(call):
    q, k, v, bias, options = call
    actual = attention(q, k, v, bias=bias, impl="reference", **options)
    torch.testing.assert_close(actual, by_the_book(q, k, v, bias, **options), rtol=1e-10, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(calls())
def test_sdpa_and_auto_are_the_reference(call):
    q, k, v, bias, options = call
    del options["softcap"]
    expected = attention(q, k, v, impl="reference", **options)
    torch.testing.assert_close(attention(q, k, v, impl="sdpa", **options), expected, rtol=1e-9, atol=1e-11)
    biased = attention(q, k, v, bias=bias, impl="reference", **options)
    torch.testing.assert_close(attention(q, k, v, bias=bias, **options), biased, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(attention(q, k, v, bias=bias, impl="sdpa", **options), biased, rtol=1e-9, atol=1e-11)
    dense = None if bias is None else bias.dense(q.shape[2], k.shape[2])
    torch.testing.assert_close(attention(q, k, v, bias=dense, impl="sdpa", **options), biased, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(attention(q, k, v, bias=dense, **options), biased, rtol=1e-9, atol=1e-11)


@settings(deadline=None, max_examples=15)
@given(calls())
def test_auto_has_a_softcap(call):
    q, k, v, bias, options = call
    expected = attention(q, k, v, bias=bias, impl="reference", return_lse=True, **options)
    actual = attention(q, k, v, bias=bias, return_lse=True, **options)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(attention(q, k, v, bias=bias, **options), expected[0], rtol=1e-9, atol=1e-11)


@settings(deadline=None, max_examples=5)
@given(calls())
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_is_the_reference(call):
    q, k, v, bias, options = call
    expected = attention(q, k, v, bias=bias, impl="reference", **options)
    torch.testing.assert_close(attention(q, k, v, bias=bias, impl="flex", **options), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_flex_without_a_gradient_is_refused_by_name(which):
    q, k, v = (torch.randn(1, 1, 4, 16, requires_grad=place == which) for place in range(3))
    with pytest.raises(ValueError, match="impl 'flex' has no gradient on a CPU"):
        attention(q, k, v, impl="flex")


@pytest.mark.parametrize("scores_at_once", [1, 2**18])
@settings(deadline=None, max_examples=15)
@given(call=calls())
def test_streamed_attention_and_its_gradients_are_the_reference(scores_at_once, call):
    """In chunks of 16 queries, and in a single chunk; lengths go up to 36, so that several chunks are needed."""
    q, k, v, _, options = call
    del options["query_lengths"], options["softcap"]  # `streams` says no to them
    q, k, v = (tensor.repeat(1, 1, 4, 1).requires_grad_() for tensor in (q, k, v))
    table = torch.randn(q.shape[1], q.shape[2] + k.shape[2] - 1, dtype=torch.float64, requires_grad=True)
    asked = Options(options["causal"], options["window"], options["scale"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trans4init.kernels.attention.streamed.SCORES_AT_ONCE", scores_at_once)
        results = [streamed_attention(q, k, v, table, options["key_lengths"], asked)]
        results.append(attention(q, k, v, bias=RelativeBias(table), impl="reference", return_lse=True, **options))
        weight = torch.randn_like(results[0][0])
        losses = [(out * weight).sum() + lse.clamp(min=-1e3).sum() for out, lse in results]
        gradients = [torch.autograd.grad(loss, (q, k, v, table)) for loss in losses]
    for actual, expected in zip((*results[0], *gradients[0]), (*results[1], *gradients[1]), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-10)


def test_streamed_attention_is_as_exact_under_autocast():
    """Autocast must not round the products of a chunk, forward or backward."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, 2, 40, 16, generator=generator).bfloat16() for _ in range(3)]
    inputs.append(torch.randn(2, 79, generator=generator))
    results = []
    for enabled in (False, True):
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out, lse = streamed_attention(*leaves, None, Options(True, None, 0.25))
            results.append([out, lse, *torch.autograd.grad(out.float().square().sum() + lse.sum(), leaves)])
    for plain, autocast in zip(*results, strict=True):
        assert torch.equal(plain, autocast)


class Largest(TorchDispatchMode):
    """Records how many entries the largest storage has that any operation allocates."""

    def __init__(self):
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.entries = max(self.entries, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize("options", [{"causal": True}, {"window": 100}, {"key_lengths": torch.tensor([900])}], ids=str)
def test_a_biased_training_step_on_a_cpu_takes_memory_linear_in_the_lengths(options):
    length = 1024
    q, k, v = (torch.randn(1, 2, length, 16, requires_grad=True) for _ in range(3))
    table = torch.randn(2, 2 * length - 1, requires_grad=True)
    sizes = {}
    for impl in ("auto", "reference"):
        with Largest() as largest:
            attention(q, k, v, bias=RelativeBias(table), impl=impl, **options).sum().backward()
        sizes[impl] = largest.entries
    assert sizes["auto"] < 2.1 * 2**18 < 2 * length**2 <= sizes["reference"]


class Allocated(TorchDispatchMode):
    """Records the bytes of all storages that operations allocate."""

    def __init__(self):
        super().__init__()
        self.storages = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.storages[storage.data_ptr()] = storage  # referenced, so that no address is used twice
        return result

    @property
    def bytes(self):
        return sum(storage.nbytes() for storage in self.storages.values())


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("length", [8192, 131_072])
def test_the_kernels_take_eight_bytes_a_head_and_position_for_a_bias(length, deterministic, monkeypatch):
    """64 KiB per head at length 8k: what a launch allocates, forward and backward, more with a bias than without."""
    monkeypatch.setattr(launch, "_launch", lambda *_: None)
    heads, options = 2, Options(True, None, 0.25, 0.0, deterministic)
    q, k, v, out_grad = (torch.empty(1, heads, length, 16, dtype=torch.float16) for _ in range(4))
    table = torch.empty(1, heads, 2 * length - 1)
    taken = []
    for bias in (None, table):
        with Allocated() as allocated:
            inputs = launch.Inputs(q, k, v, bias, None, None, None, options)
            out, lse = launch.launch_forward(inputs)
            launch.launch_backward(out_grad, torch.zeros_like(lse), out, lse, inputs, bias is not None)
        taken.append(allocated.bytes)
    assert 0 < taken[1] - taken[0] <= 8 * length * heads


def peak_bytes(call):
    """Return the most bytes that a call has allocated at a time."""
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    allocated = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            allocated += event.nbytes()
            most = max(most, allocated)
    return most


def test_a_biased_training_step_on_a_cpu_holds_twice_as_much_at_twice_the_length():
    def step(length):
        q, k, v = (torch.randn(1, 2, length, 16, requires_grad=True) for _ in range(3))
        table = torch.randn(2, 2 * length - 1, requires_grad=True)
        return lambda: attention(q, k, v, bias=RelativeBias(table), causal=True).sum().backward()

    short, long = (peak_bytes(step(length)) for length in (1024, 2048))
    assert 0 < long < 2.1 * short


def test_streamed_members_of_a_vmap_have_tables_of_their_own():
    q, k, v = (torch.randn(2, 2, 3, 20, 4, dtype=torch.float64) for _ in range(3))
    tables = torch.randn(2, 3, 39, dtype=torch.float64)

    def loss(q, k, v, table):
        return streamed_attention(q, k, v, table, None, Options(True, None, 0.5))[0].square().sum()

    derive = torch.func.grad(loss, argnums=(0, 3))
    actual = torch.func.vmap(derive)(q, k, v, tables)
    for member in range(2):
        alone = derive(q[member], k[member], v[member], tables[member])
        for a, b in zip(actual, alone, strict=True):
            torch.testing.assert_close(a[member], b)


def test_gradients_of_the_specification_agree_with_finite_differences():
    """With all options at once: grouped heads, unequal lengths, a window, padding, a softcap and dropout."""
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator, requires_grad=True)

    def call(q, k, v, table):
        torch.manual_seed(0)
        options = {"window": (2, 1), "key_lengths": torch.tensor([3, 4]), "query_lengths": torch.tensor([5, 4])}
        options |= {"dropout_p": 0.3, "softcap": 0.8}
        return attention(q, k, v, bias=RelativeBias(table), impl="reference", **options)

    torch.autograd.gradcheck(call, (leaf(2, 2, 5, 3), leaf(2, 1, 4, 3), leaf(2, 1, 4, 3), leaf(2, 8)))


def test_gradients_reach_the_table_and_are_exact():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 5, 3, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(3))
    table = torch.randn(2, 9, dtype=torch.float64, generator=generator, requires_grad=True)
    torch.autograd.gradcheck(lambda *t: attention(*t[:3], bias=RelativeBias(t[3]), causal=True), (q, k, v, table))


@pytest.mark.parametrize("impl", ["reference", "sdpa", "auto", "triton"])
def test_a_bias_of_minus_infinity_hides_a_query_from_all_keys(impl):
    q, k, v = (torch.randn(1, 1, 4, 16, requires_grad=True) for _ in range(3))
    table = torch.zeros(1, 7)
    table[:, 3:] = -math.inf  # i >= j: the last query sees nothing
    table.requires_grad_()
    actual = attention(q, k, v, bias=RelativeBias(table), impl=impl)
    assert actual[0, 0, 3].abs().max() == 0
    assert actual[0, 0, :3].abs().min() > 0
    actual.sum().backward()
    assert all(torch.isfinite(tensor.grad).all() for tensor in (q, k, v, table))


@pytest.mark.parametrize("impl", ["reference", "sdpa", "auto"])
@pytest.mark.parametrize("biased", [True, False])
def test_a_call_compiles_once_for_all_lengths_without_a_graph_break(impl, biased):
    def call(q, k, v, table):
        return attention(q, k, v, bias=RelativeBias(table) if biased else None, causal=True, impl=impl)

    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    for queries, keys in ((9, 11), (13, 7)):
        inputs = [torch.randn(2, heads, length, 8) for heads, length in ((4, queries), (2, keys), (2, keys))]
        inputs.append(torch.randn(4, queries + keys - 1))
        torch.testing.assert_close(compiled(*inputs), call(*inputs))


def test_a_call_that_is_streamed_compiles_without_a_graph_break(monkeypatch):
    monkeypatch.setattr("trans4init.kernels.attention.checks.STREAMED_FROM", 0)

    def call(q, k, v, table):
        return attention(q, k, v, bias=RelativeBias(table), window=5, causal=True)

    inputs = [torch.randn(2, heads, length, 8, requires_grad=True) for heads, length in ((4, 9), (2, 11), (2, 11))]
    inputs.append(torch.randn(4, 19, requires_grad=True))
    results = [function(*inputs) for function in (call, torch.compile(call, fullgraph=True, backend="aot_eager"))]
    gradients = [torch.autograd.grad(result.square().sum(), inputs) for result in results]
    torch.testing.assert_close([results[1], *gradients[1]], [results[0], *gradients[0]])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"impl": "magic"}, "impl 'magic' is not one of"),
        ({"q": torch.zeros(2, 4, 3)}, "q must be"),
        ({"k": torch.zeros(1, 2, 5, 3)}, "k and v must share a shape"),
        ({"k": torch.zeros(1, 3, 4, 8), "v": torch.zeros(1, 3, 4, 8)}, "2 query heads can't share 3"),
        ({"window": 0}, "window must be at least 1, or a pair (left, right) of at least 0, None for all keys"),
        ({"window": (1.5, 2)}, "on that side; (1.5, 2) was given."),
        ({"window": (-1, 2)}, "; (-1, 2) was given."),
        ({"window": (1, 2, 3)}, "; (1, 2, 3) was given."),
        ({"window": "ab"}, "; 'ab' was given."),
        ({"window": 2.0}, "; 2.0 was given."),
        ({"window": True}, "; True was given."),
        ({"softcap": 0.0}, "softcap must be a number above 0, and 0.0 was given."),
        ({"softcap": math.inf}, "softcap must be a number above 0, and inf was given."),
        ({"softcap": "1"}, "softcap must be a number above 0, and '1' was given."),
        ({"softcap": 1.0, "impl": "sdpa"}, "impl 'sdpa' has no softcap; 'reference', 'flex' and 'triton' have one."),
        ({"query_lengths": torch.tensor([1, 2])}, "query_lengths must be [1] integers, and is [2] torch.int64."),
        ({"query_lengths": torch.tensor([True])}, "query_lengths must be [1] integers, and is [1] torch.bool."),
        ({"query_lengths": [1]}, "query_lengths must be a tensor of [1] integers, and is [1]."),
        ({"query_lengths": torch.tensor([1], device="meta")}, "q and query_lengths must be on one device"),
        ({"v": torch.zeros(1, 2, 4, 16), "impl": "triton"}, "q, k and v of one head dim, and q has 8 and v 16"),
        ({"key_lengths": torch.tensor([1, 2, 3])}, "key_lengths must be [1]"),
        ({"bias": RelativeBias(torch.zeros(2, 3))}, "the bias table must be [2, 7]"),
        ({"bias": torch.zeros(4, 3)}, "a dense bias must be floats that broadcast to [1, 2, 4, 4]"),
        ({"dropout_p": 1.5}, "dropout_p must be from 0 to 1"),
        ({"q": torch.zeros(1, 2, 0, 8)}, "q must not be empty"),
        ({"q": torch.zeros(1, 2, 4, 8, device="meta")}, "must be on one device"),
        ({"bias": torch.zeros(4, 4), "impl": "triton"}, "'reference' and 'sdpa' take a dense one"),
        ({"bias": RelativeBias(torch.zeros(2, 7).double()), "impl": "triton"}, "float32 bias table"),
        ({"impl": "triton"}, "impl 'triton' takes a head dim of 16, 32, 64, 80, 96, 128, 256, and 8 was given."),
        ({"impl": "flex", "dropout_p": 0.5}, "impl 'flex' has no dropout."),
        ({"impl": "sdpa", "return_lse": True}, "doesn't return the log-sum-exp"),
        ({"v": torch.zeros(1, 2, 4, 8, dtype=torch.float64)}, "must share dtype"),
    ],
)
def test_bad_calls_are_refused_in_one_sentence(change, sentence):
    call = {name: torch.zeros(1, 2, 4, 8) for name in ("q", "k", "v")} | change
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        attention(call.pop("q"), call.pop("k"), call.pop("v"), **call)
    assert sentence in str(caught.value)


def test_scale_is_one_over_root_of_head_dim():
    q, k, v = (torch.randn(1, 1, 3, 16) for _ in range(3))
    torch.testing.assert_close(attention(q, k, v), attention(q, k, v, scale=1 / math.sqrt(16)))
