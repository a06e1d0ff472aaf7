"""Slots compute in float32 at least, whatever the model is rounded to, and are made anew when it is moved or loaded."""

import copy
import pickle

import pytest
import torch
from torch.func import functional_call, grad, vmap

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.fit import fit
from trans4init.ablations.functions import get_function, list_functions
from trans4init.ablations.nets import build_net, list_nets
from trans4init.ablations.slots.contents import Content
from trans4init.ablations.slots.slot import sampled_inputs
from trans4init.ablations.transformer import Transformer, TransformerConfig

TOKENS = torch.randint(20, (2, 12), generator=torch.Generator().manual_seed(0))
ARMS = ["learned-frozen", "learned-fine-tuned", "corrected", "frozen-exact-gradient", "scaled"]
SLOTS = {"softmax": "softmax-exp", "normalization": "layernorm-rsqrt", "activation": "gelu"}
OF_POSITIONS = [name for name in list_functions() if get_function(name).slot == "position" and not name.endswith("-2d")]


def small(**changes):
    return Transformer(TransformerConfig(layers=1, width=32, heads=4, vocabulary=20, context=16, **changes)).eval()


@pytest.fixture(scope="module")
def fits():
    return {slot: fit(function, "piecewise-linear", seed=0) for slot, function in SLOTS.items()}


def relative(values, exact):
    return ((values.double() - exact).square().mean() / exact.square().mean()).sqrt().item()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("slot", "placement", "gain"), [("softmax", "post", 100), ("normalization", "pre", 400)])
def test_each_arm_is_as_exact_as_the_closed_form(fits, slot, placement, gain, dtype):
    """Scores and variances here are beyond the range of float16."""

    def errors(arm):
        model = small(norm_placement=placement, position="learned-table")
        with torch.no_grad():
            model.embedding.weight.mul_(gain)
            apply_arm(model, slot, arm, None if arm == "analytic" else fits[slot])
            exact = copy.deepcopy(model).double()(TOKENS)
            rounded = copy.deepcopy(model).to(dtype)(TOKENS)
            with torch.autocast("cpu", dtype=dtype):
                cast = model(TOKENS)
        return relative(rounded, exact), relative(cast, exact)

    closed = errors("analytic")
    for arm in ARMS:
        for found, allowed in zip(errors(arm), closed, strict=True):
            assert found <= 2 * allowed, arm


def test_attention_maps_of_large_scores_are_finite():
    model = small(norm_placement="post", position="learned-table")
    with torch.no_grad():
        model.embedding.weight.mul_(100)
    assert all(weights.isfinite().all() for weights in model.half().attention_maps(TOKENS).values())


def test_a_mean_square_beyond_float16_is_normalised():
    model = small(normalization="rmsnorm-rsqrt")
    apply_arm(model, "normalization", "learned-frozen", fit("rmsnorm-rsqrt", "piecewise-linear", seed=0))
    norm = model.blocks[0].attention_norm
    state = 300 * torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    right = norm(state)
    torch.testing.assert_close(norm.half()(state.half()).float(), right, rtol=5e-3, atol=5e-3)
    assert right.abs().max() > 1


@pytest.mark.parametrize("position", ["t5", "sinusoidal", "rope", "learned-distance"])
def test_a_model_is_made_where_bfloat16_is_the_default(position):
    """It is what the model made in float32 and then rounded would be, but for the rounding of its first values."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = small(position=position)
        logits = model(TOKENS)
    finally:
        torch.set_default_dtype(torch.float32)
    assert logits.dtype == torch.bfloat16
    moving = {name: value.dtype for name, value in model.named_parameters() if ".slot." not in name}
    assert torch.bfloat16 in moving.values()


@pytest.mark.parametrize("net", list_nets())
def test_a_net_is_float32_whatever_the_default(net):
    domain = get_function("gelu").domain
    torch.set_default_dtype(torch.bfloat16)
    try:
        made = build_net(net, domain, 1)
    finally:
        torch.set_default_dtype(torch.float32)
    right = build_net(net, domain, 1)
    for (name, value), other in zip(made.named_parameters(), right.parameters(), strict=True):
        assert value.dtype == torch.float32, name
        assert torch.equal(value, other), name


@pytest.mark.parametrize("net", ["spline", "mlp-gelu"])
def test_a_fit_has_the_same_bits_whatever_the_caller_has_set(net):
    def weights():
        size = {"hidden": (4,)} if net == "mlp-gelu" else {}
        return list(fit("gelu", net, seed=0, steps=5, size=size).net.parameters())

    right = weights()
    with torch.no_grad():
        without = weights()
    with torch.inference_mode():
        inference = weights()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = weights()
    torch.set_default_dtype(torch.float16)
    try:
        default = weights()
    finally:
        torch.set_default_dtype(torch.float32)
    for other in (without, inference, cast, default):
        assert all(torch.equal(a, b) for a, b in zip(right, other, strict=True))


@pytest.mark.parametrize("position", OF_POSITIONS)
def test_a_copied_moved_or_loaded_model_is_the_same(position):
    model = small(position=position)
    right = model(TOKENS)
    with torch.device("meta"):
        assigned, emptied = Transformer(model.config).eval(), Transformer(model.config).eval()
    assigned.load_state_dict(model.state_dict(), assign=True)
    emptied = emptied.to_empty(device="cpu")
    emptied.load_state_dict(model.state_dict())
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), assigned, emptied):
        assert torch.equal(other(TOKENS), right)


@pytest.mark.parametrize("position", ["sinusoidal", "rope", "alibi", "t5", "xpos"])
def test_what_is_derived_follows_the_dtype(position):
    """Rounded and back, the tables are those of a fresh model; rounded parameters bring their dtype with them."""
    model = small(position=position)
    back = copy.deepcopy(model).half().float()
    fresh = small(position=position)
    fresh.load_state_dict(back.state_dict())
    assert torch.equal(back(TOKENS), fresh(TOKENS))
    half = copy.deepcopy(model).half()
    with torch.device("meta"):
        assigned = Transformer(model.config).eval()
    assigned.load_state_dict(half.state_dict(), assign=True)
    assert torch.equal(assigned(TOKENS), half(TOKENS))


def test_a_frozen_net_is_moved_with_its_model_and_back(fits):
    model = small()
    apply_arm(model, "activation", "learned-frozen", fits["activation"])
    contents = [module for module in model.modules() if isinstance(module, Content)]
    before = [value.clone() for content in contents for value in content.buffers()]
    model.half().float()
    after = [value for content in contents for value in content.buffers()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("arm", [*ARMS, "none"])
def test_per_sample_gradients_are_those_of_each_sample(fits, arm):
    model = small()
    apply_arm(model, "activation", arm, None if arm == "none" else fits["activation"])
    moving = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}

    def loss(values, tokens):
        return functional_call(model, values, (tokens[None],)).square().mean()

    together = vmap(grad(loss), in_dims=(None, 0))(moving, TOKENS)
    for index, tokens in enumerate(TOKENS):
        for name, value in grad(loss)(moving, tokens).items():
            torch.testing.assert_close(together[name][index], value, rtol=1e-4, atol=1e-6)


def test_hidden_keys_are_no_inputs_of_the_softmax():
    model = small()
    apply_arm(model, "softmax", "none")
    length = TOKENS.shape[1]
    with sampled_inputs(model, each=10**6) as samples, torch.no_grad():
        model(TOKENS)
    [seen] = [sample for path, sample in samples.items() if path.endswith(".softmax")]
    assert len(seen) == 2 * 4 * length * (length + 1) // 2
    assert (seen == 0).sum() == 2 * 4 * length  # the largest score of each row
