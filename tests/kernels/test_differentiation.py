"""Tests of all derivatives of the operators: second ones, forward mode, vmap, and what refuses them in a sentence."""

import functools
import itertools

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import grad, hessian, jvp, vmap

from trans4init.kernels.attention import RelativeBias, attention, pytorch
from trans4init.kernels.polyline import native_refusal, polyline
from trans4init.kernels.positional_mlp import positional_mlp
from trans4init.kernels.torch_compile import compile_function

pytestmark = pytest.mark.filterwarnings("error:There is a performance drop")  # vmap would call member by member
LENGTHS, GENERATOR = torch.tensor([7, 3]), torch.Generator().manual_seed(0)


def draw(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


QUERIES, TABLE = [draw(2, 2, 5, 16), draw(2, 1, 7, 16), draw(2, 1, 7, 16)], draw(2, 11)
NET = [draw(4).abs(), draw(2, 8, 6), draw(2, 6, 3), draw(2, 6), draw(2, 3)]
KINKS, SLOPES = draw(5).sort().values, draw(6)
LINES = torch.stack([SLOPES, torch.cat([torch.ones(1), -(SLOPES.diff() * KINKS).cumsum(0) + 1])])  # they meet


def attend(impl, q, k, v, table=None, **options):
    """Return attention of "streamed" as "auto" computes it where lengths are great, of another impl by its name."""
    bias = None if table is None else RelativeBias(table)
    with pytest.MonkeyPatch.context() as patch:
        if impl == "streamed":
            patch.setattr("trans4init.kernels.attention.checks.STREAMED_FROM", 0)
        return attention(q, k, v, bias=bias, scale=0.3, impl="auto" if impl == "streamed" else impl, **options)


def attend_densely(impl, q, k, v, table):
    return attention(q, k, v, bias=RelativeBias(table).dense(5, 7), causal=True, impl=impl)


def with_levels(impl, q, k, v, table):
    out, lse = attend(impl, q, k, v, table, causal=True, key_lengths=LENGTHS, return_lse=True)
    return out + lse[..., None].clamp(min=-9)


def evaluate_nets(impl, positions, frequencies, *layers):
    return positional_mlp(positions, frequencies, layers[:2], layers[2:], features="fourier", impl=impl)


def evaluate_at_fixed_positions(impl, *net):
    return evaluate_nets(impl, torch.linspace(-2, 2, 9, dtype=net[0].dtype), *net)


def bend(impl, inputs):
    return polyline(inputs, KINKS, LINES, impl=impl)


def attend_causally(impl, q, k, v):
    return attend(impl, q, k, v, causal=True)


def attend_to_some(impl, q, k, v, table):
    return attend(impl, q, k, v, table, causal=True, key_lengths=LENGTHS)


def attend_in_a_window(impl, q, k, v, table):
    return attend(impl, q, k, v, table, window=3)


def name(value):
    """Name a parameter of a test by its function or implementation, or by how many inputs it has."""
    return f"{len(value)} inputs" if isinstance(value, list) else getattr(value, "__name__", value)


EVERYTHING = [(attend_causally, impl, QUERIES) for impl in ("auto", "sdpa")]
EVERYTHING += [
    (call, impl, [*QUERIES, TABLE])
    for call in (attend_to_some, attend_in_a_window)
    for impl in ("auto", "sdpa", "streamed")
]
EVERYTHING += [(attend_densely, impl, [*QUERIES, TABLE]) for impl in ("auto", "sdpa")]
EVERYTHING += [(with_levels, impl, [*QUERIES, TABLE]) for impl in ("auto", "streamed")]
EVERYTHING += [(evaluate_nets, impl, [draw(9), *NET]) for impl in ("auto", "bmm")]
EVERYTHING += [(bend, "auto", [draw(70)]), (bend, "auto", [draw(70).float()])]


def loss(function, *inputs):
    return function(*inputs).pow(3).sum()


def second(function, inputs):
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    firsts = torch.autograd.grad(loss(function, *leaves), leaves, create_graph=True)
    return torch.autograd.grad(sum(first.pow(3).sum() for first in firsts), leaves)


def dual(function, inputs):
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(tensor, tensor.cos()) for tensor in inputs]
        return [forward_ad.unpack_dual(function(*duals)).tangent.clone()]


def forward(function, inputs):
    return [jvp(function, tuple(inputs), tuple(tensor.cos() for tensor in inputs))[1]]


def hessian_of_the_last(function, inputs):
    return [hessian(lambda last: loss(function, *inputs[:-1], last))(inputs[-1])]


def members_by_vmap(function, inputs):
    return [vmap(function)(*(torch.stack([tensor, tensor.cos()]) for tensor in inputs))]


def gradients_by_vmap(function, inputs):
    derive = grad(functools.partial(loss, function), argnums=tuple(range(len(inputs))))
    return vmap(derive)(*(torch.stack([tensor, tensor.cos()]) for tensor in inputs))


def gradient_through_vmap(function, inputs):
    stacked = [torch.stack([tensor, tensor.cos()]) for tensor in inputs]
    return grad(functools.partial(loss, vmap(function)), argnums=tuple(range(len(inputs))))(*stacked)


def second_of_a_functional_gradient(function, inputs):
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    return torch.autograd.grad(grad(functools.partial(loss, function))(*leaves).pow(3).sum(), leaves)


SECOND = [second, hessian_of_the_last, second_of_a_functional_gradient]
FORWARD = [dual, forward]
MAPPED = [members_by_vmap, gradients_by_vmap, gradient_through_vmap]


@pytest.mark.parametrize("derive", [*SECOND, *FORWARD, *MAPPED])
@pytest.mark.parametrize(("call", "impl", "inputs"), EVERYTHING, ids=name)
@pytest.mark.filterwarnings("ignore:There is a performance drop.*unfold_backward")  # of the second derivative
def test_every_derivative_is_that_of_the_specification(call, impl, inputs, derive):
    actual = derive(functools.partial(call, impl), inputs)
    expected = derive(functools.partial(call, "reference"), [tensor.double() for tensor in inputs])
    tolerance = 1e-9 if inputs[0].dtype == torch.float64 else 1e-5
    for value, right in zip(actual, expected, strict=True):
        torch.testing.assert_close(value.double(), right, rtol=tolerance, atol=tolerance * right.abs().max().item())


@pytest.mark.parametrize("shared", ["q is k", "k follows from q"])
def test_a_second_derivative_does_not_count_a_query_twice_that_the_keys_are_made_of(shared):
    q = QUERIES[0]

    def call(impl, q):
        k = q if shared == "q is k" else q.sin()
        return attention(q, k, k.cos(), causal=True, impl=impl)

    actual, expected = (second(functools.partial(call, impl), [q]) for impl in ("sdpa", "reference"))
    torch.testing.assert_close(actual, expected)


def test_a_second_derivative_of_sdpa_with_dropout_is_that_of_the_same_mask():
    """On a CPU, where PyTorch has one. Finite differences of the gradient, with the same seed."""
    q, k, v = (tensor.expand(-1, 2, -1, -1).contiguous() for tensor in QUERIES)

    def call(q):
        torch.manual_seed(0)
        return attention(q, k, v, dropout_p=0.5, impl="sdpa")

    assert torch.autograd.gradgradcheck(call, q[:, :, :2].clone().requires_grad_())


@pytest.mark.parametrize("mapped", list(itertools.product([True, False], repeat=5))[:-1], ids=str)
def test_streamed_members_of_a_vmap_may_share_any_of_the_inputs(mapped):
    q, k, v = QUERIES
    stacks = [torch.stack([tensor, tensor.cos()]) for tensor in (q, k, v, TABLE)]
    stacks.append(torch.stack([LENGTHS, LENGTHS.flip(0)]))

    def total(impl, q, k, v, table, lengths):
        return attend(impl, q, k, v, table, causal=True, key_lengths=lengths).pow(2).sum()

    inputs = [stack if own else stack[0] for stack, own in zip(stacks, mapped, strict=True)]
    dims = tuple(0 if own else None for own in mapped)
    results = []
    for impl in ("streamed", "reference"):
        function = functools.partial(total, impl)
        results.append([vmap(function, in_dims=dims)(*inputs)])
        results[-1] += vmap(grad(function, argnums=(0, 1, 2, 3)), in_dims=dims)(*inputs)
    torch.testing.assert_close(*results)


def test_a_compiled_function_has_the_forward_mode_derivative_of_attention():
    call = functools.partial(attend_to_some, "auto")
    compiled = torch.compile(lambda *inputs: forward(call, inputs), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*QUERIES, TABLE), forward(call, [*QUERIES, TABLE]))


NATIVE = [] if native_refusal() else ["native"]
REFUSED = [(attend, "triton", [*QUERIES, TABLE], derive) for derive in (*SECOND, *FORWARD)]
REFUSED += [(attend, "flex", QUERIES, derive) for derive in (*FORWARD, members_by_vmap)]
REFUSED += [(evaluate_at_fixed_positions, "triton", NET, derive) for derive in (*SECOND, *FORWARD)]
REFUSED += [(evaluate_nets, "triton", [draw(9), *NET], gradient_through_vmap)]
REFUSED += [(evaluate_nets, "compile", [draw(9), *NET], derive) for derive in (*FORWARD, *MAPPED)]
REFUSED += [
    (bend, impl, [draw(70)], derive) for impl in ("triton", "compile", *NATIVE) for derive in (*FORWARD, *MAPPED)
]
REFUSED += [(bend, "sum", [draw(70)], derive) for derive in MAPPED]


@pytest.mark.parametrize(("call", "impl", "inputs", "derive"), REFUSED, ids=name)
def test_a_derivative_that_an_implementation_has_not_is_refused_in_a_sentence(call, impl, inputs, derive):
    with pytest.raises((ValueError, NotImplementedError), match=r"^(impl '|The fused)[^\n]*\.$") as caught:
        derive(functools.partial(call, impl), [tensor.float() for tensor in inputs])
    assert "reference" in str(caught.value) or "compile the transformed function" in str(caught.value)


@pytest.mark.parametrize("impl", ["sum", "triton", *NATIVE])
def test_every_polyline_has_a_second_derivative(impl):
    """The slope times what comes after it: 0 by the inputs, and the slope by what comes after."""
    inputs = draw(70).float()
    actual, expected = (second(functools.partial(bend, name), [inputs]) for name in (impl, "reference"))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * expected[0].abs().max().item())


def test_a_function_compiled_by_name_has_no_second_derivative_and_says_so():
    compiled = compile_function(torch.sin, backend="aot_eager")
    leaf = draw(5).requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(compiled(leaf).sum(), leaf)[0], leaf.cos())
    with pytest.raises(NotImplementedError, match=r"^impl 'compile' has no second derivative; impl 'reference' has"):
        torch.autograd.grad(compiled(leaf).sum(), leaf, create_graph=True)


def test_flex_has_no_second_derivative_and_says_so(monkeypatch):
    """A function that has one stands in for PyTorch's on a GPU."""
    monkeypatch.setattr(pytorch, "_flex_attention", lambda _: lambda q, k, v, **_: q @ k.mT @ v)
    leaves = [tensor[:, :1].clone().requires_grad_() for tensor in QUERIES]
    options = pytorch.Options(False, None, 1.0)
    out = pytorch.flex(*leaves, None, None, None, options)
    assert torch.autograd.grad(out.sum(), leaves[0])[0].abs().max() > 0
    with pytest.raises(NotImplementedError, match=r"^impl 'flex' has no second derivative; impl 'reference' has one"):
        second(lambda *inputs: pytorch.flex(*inputs, None, None, None, options), leaves)
