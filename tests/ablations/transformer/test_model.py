"""Tests that the Transformer is causal, is initialised by parameter name, and refuses sizes that don't fit."""

import math

import pytest
import torch
from pydantic import ValidationError

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import Domain
from trans4init.ablations.nets import build_net
from trans4init.ablations.slots.slot import Slot, observed_ranges
from trans4init.ablations.transformer import Transformer, TransformerConfig
from trans4init.ablations.transformer import attention as attention_layer
from trans4init.ablations.transformer.masks import Visibility
from trans4init.kernels.attention import attention

CONFIG = TransformerConfig(layers=2, width=16, heads=4, vocabulary=13, context=12)


@pytest.mark.parametrize("position", ["sinusoidal", "none", "learned-table"])
def test_no_output_depends_on_a_later_token(position):
    model = Transformer(CONFIG.model_copy(update={"position": position}))
    tokens = torch.randint(13, (1, 12))
    embedded = model.embedding(tokens).detach().requires_grad_()
    model.embedding.register_forward_hook(lambda *_: embedded)
    logits = model(tokens)
    for row in range(12):
        [gradient] = torch.autograd.grad(logits[0, row].sum(), embedded, retain_graph=True)
        assert torch.count_nonzero(gradient[0, row + 1 :]) == 0
        assert (gradient[0, : row + 1].abs().amax(dim=-1) > 0).all()


def test_every_parameter_starts_from_the_seed_and_its_own_name():
    """A parameter that models of different arms share has the same initial value in all of them."""
    small, deep = Transformer(CONFIG, seed=7), Transformer(CONFIG.model_copy(update={"position": "none"}), seed=7)
    apply_arm(deep, "position", "analytic")
    for (name, expected), (_, parameter) in zip(small.named_parameters(), deep.named_parameters(), strict=True):
        assert torch.equal(parameter, expected), name
    assert not torch.equal(small.embedding.weight, Transformer(CONFIG, seed=8).embedding.weight)
    net = build_net("siren", Domain(0, 11, integer=True), 16)
    learned = Transformer(CONFIG, seed=7)
    apply_arm(learned, "position", "learned-from-scratch", net, seed=7)
    assert torch.equal(learned.blocks[1].feed_forward.up.weight, small.blocks[1].feed_forward.up.weight)


def test_the_spread_at_the_start_is_one_over_root_of_fan_in():
    model = Transformer(TransformerConfig(layers=2, width=128, heads=4, vocabulary=300))
    assert model.embedding.weight.std().item() == pytest.approx(1 / math.sqrt(128), rel=0.02)
    assert model.blocks[0].feed_forward.up.weight.std().item() == pytest.approx(1 / math.sqrt(128), rel=0.02)
    out = model.blocks[0].feed_forward.out.weight
    assert out.std().item() == pytest.approx(1 / math.sqrt(512) / math.sqrt(4), rel=0.02)


def test_longer_inputs_than_the_context_are_possible_where_the_encoding_can():
    assert Transformer(CONFIG)(torch.zeros(1, 40, dtype=torch.long)).shape == (1, 40, 13)


def test_layers_have_norms_of_their_own_and_the_output_is_the_embedding():
    model = Transformer(CONFIG)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert len({id(norm.weight) for norm in norms}) == 2 * 2 + 1
    model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
    assert model.embedding.weight.grad[5].abs().max() > 0  # a token that was not in the input: through the output


def test_permuting_heads_with_their_output_weights_changes_nothing():
    model, tokens = Transformer(CONFIG), torch.randint(13, (2, 12))
    before = model(tokens)
    order, attention = torch.tensor([2, 0, 3, 1]), model.blocks[0].attention
    with torch.no_grad():
        qkv = attention.queries_keys_values.weight.view(3, 4, 4, 16)
        attention.queries_keys_values.weight.copy_(qkv[:, order].reshape(48, 16))
        attention.out.weight.copy_(attention.out.weight.view(16, 4, 4)[:, order].reshape(16, 16))
    torch.testing.assert_close(model(tokens), before)


def test_a_learned_table_is_a_parameter_of_the_model():
    model = Transformer(CONFIG.model_copy(update={"position": "learned-table"}), seed=1)
    assert model.position.content.table.shape == (12, 16)
    assert "position.content.table" in dict(model.named_parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "can't be shared by 3 heads"),
        ({"layers": 0}, "greater than or equal to 1"),
        ({"wdth": 3}, "wdth"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        TransformerConfig(**{"layers": 1, "width": 8, "heads": 2, "vocabulary": 5} | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"width": 15, "heads": 3}, "even width"), ({"position": "sinus"}, "did you mean 'sinusoidal'")],
)
def test_functions_that_do_not_fit_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        Transformer(CONFIG.model_copy(update=change))


def test_the_contracts_first_lines_work():
    config = TransformerConfig(
        kind="decoder", layers=2, width=64, heads=4, vocabulary=256, position="sinusoidal", activation="gelu"
    )
    assert Transformer(config)(torch.zeros(1, 5, dtype=torch.long)).shape == (1, 5, 256)


def test_presets_are_named_sizes_that_can_be_changed():
    toy = TransformerConfig.preset("toy")
    assert (toy.layers, toy.width, toy.heads, toy.vocabulary) == (1, 128, 4, 256)
    nano = TransformerConfig.preset("nano", vocabulary=65, position="none")
    assert (nano.layers, nano.width, nano.context, nano.vocabulary, nano.position) == (4, 128, 64, 65, "none")
    with pytest.raises(InputError, match="unknown preset 'tony'; did you mean 'toy'"):
        TransformerConfig.preset("tony")


SLOT_FUNCTIONS = {
    "position": [
        "sinusoidal-halves",
        "rope",
        "rope-partial",
        "xpos",
        "alibi",
        "t5",
        "kerple-log",
        "fire",
        "fire-query",
    ],
    "softmax": ["2relu", "2quad", "i-exp", "stablemax"],
    "normalization": ["rmsnorm-rsqrt", "dyt", "derf"],
    "scale": ["scalable-softmax"],
}
CHOICES = [(slot, name) for slot, names in SLOT_FUNCTIONS.items() for name in names]


@pytest.mark.parametrize(("slot", "function"), CHOICES)
def test_every_function_is_causal_and_trains(slot, function):
    model = Transformer(CONFIG.model_copy(update={slot: function})).eval()
    tokens = torch.randint(13, (1, 12), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 7] = (changed[0, 7] + 1) % 13
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7], rtol=0, atol=1e-6)
    assert (before[:, 7:] - after[:, 7:]).abs().max() > 1e-5
    torch.nn.functional.cross_entropy(before.flatten(0, 1), tokens.flatten()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@torch.no_grad()
def test_rows_of_2relu_without_a_positive_score_are_uniform_as_in_mpcformer():
    model = Transformer(CONFIG.model_copy(update={"softmax": "2relu", "position": "none"})).eval()
    attention = model.blocks[0].attention
    scores = torch.tensor([[-1.0, -2.0, -0.5, 9.0], [-1.0, 3.0, 1.0, 9.0], [0.0, 0.0, -7.0, -9.0]])
    hidden = torch.tensor([[False, False, False, True]] * 2 + [[False] * 4])
    weights = attention._normalise(scores, hidden)
    relu = scores.clamp_min(0).masked_fill(hidden, 0)
    keys = (~hidden).sum(-1, keepdim=True)
    theirs = (relu + 1e-12 / keys) / (relu.sum(-1, keepdim=True) + 1e-12)  # softmax_2relu in MPCFormer's code
    torch.testing.assert_close(weights, theirs.masked_fill(hidden, 0))
    assert weights[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    other = Transformer(CONFIG.model_copy(update={"softmax": "2quad", "position": "none"})).blocks[0].attention
    assert other._normalise(torch.full((1, 2), -5.0), torch.tensor([[False, False]])).count_nonzero() == 0


def slot_calls(model):
    """Count how often each slot's content is evaluated in one forward pass."""
    calls = {}
    for path, slot in model.named_modules():
        if isinstance(slot, Slot):
            slot.content.register_forward_hook(lambda *_, path=path: calls.update({path: calls.get(path, 0) + 1}))
    model(model.example_inputs())
    return calls


def test_a_slot_that_holds_a_fused_closed_form_is_not_called():
    """So a default model costs what it would without slots."""
    calls = slot_calls(Transformer(CONFIG))
    assert calls == {"position": 1, "blocks.0.feed_forward.activation": 1, "blocks.1.feed_forward.activation": 1}
    with observed_ranges(Transformer(CONFIG)) as nothing:
        assert nothing == {}


def test_watching_a_model_changes_nothing_and_sees_every_slot():
    model = Transformer(CONFIG)
    before = model(model.example_inputs())
    with observed_ranges(model) as ranges:
        watched = model(model.example_inputs())
    assert torch.equal(before, watched)
    assert len(ranges) == 1 + 5 + 2 * 5  # position; norms; activation, softmax, reciprocal, scale, mixing in each layer
    low, high = ranges["blocks.0.attention.softmax"]
    assert low < high == 0
    assert ranges["blocks.1.attention.scale"] == (1, 12)
    assert (
        1
        <= ranges["blocks.0.attention.softmax_reciprocal"][0]
        <= ranges["blocks.0.attention.softmax_reciprocal"][1]
        <= 12
    )


def test_the_slots_unfused_compute_what_the_fused_operations_do():
    """Closed forms that the slots don't recognise, so that nothing is fused, give the same model up to rounding."""
    model = Transformer(CONFIG)
    expected = model(model.example_inputs())
    for slot in model.modules():
        if isinstance(slot, Slot) and slot.function.fused:
            slot.content = Wrapped(slot.content)
    assert len(slot_calls(model)) == 1 + 5 + 2 * 5
    torch.testing.assert_close(model(model.example_inputs()), expected, rtol=0, atol=2e-6)


class Wrapped(torch.nn.Module):
    def __init__(self, content):
        super().__init__()
        self.inner = content

    def forward(self, inputs, highest=None):
        return self.inner(inputs, highest)


@pytest.mark.parametrize("position", ["sinusoidal", "rope", "alibi", "fire-query", "t5"])
def test_randomised_positions_are_for_training_alone_and_the_same_for_a_seed(position):
    config = CONFIG.model_copy(update={"position": position, "randomised_positions": 64})
    model, same, other = (Transformer(config, seed=seed).train() for seed in (0, 0, 1))
    other.load_state_dict(dict(model.named_parameters()), strict=False)
    tokens = model.example_inputs()
    first = model(tokens)
    assert torch.equal(first, same(tokens))
    assert not torch.allclose(first, model(tokens))
    assert not torch.allclose(first, other(tokens))
    plain = Transformer(CONFIG.model_copy(update={"position": position}))
    plain.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(model.eval()(tokens), plain.eval()(tokens))


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_a_loaded_model_draws_the_positions_that_come_next(kind):
    config = CONFIG.model_copy(update={"kind": kind, "randomised_positions": 64})
    model, tokens = Transformer(config).train(), torch.randint(13, (2, 9))
    options = {"source": tokens.flip(1)} if kind == "encoder-decoder" else {}
    model(tokens, **options)
    again = Transformer(config, seed=5).train()
    again.load_state_dict(model.state_dict())
    for _ in range(2):
        assert torch.equal(again(tokens, **options), model(tokens, **options))


def test_a_range_that_is_too_short_for_random_positions_is_refused():
    with pytest.raises(ValidationError, match="at least the context, 12, not 3"):
        TransformerConfig(layers=1, width=8, heads=2, vocabulary=5, context=12, randomised_positions=3)


@pytest.mark.parametrize(
    ("key", "function"), [("softmax", "relu"), ("normalization", "gelu"), ("scale", "tanh"), ("position", "transpose")]
)
def test_a_function_in_a_slot_that_is_not_its_own_is_refused(key, function):
    with pytest.raises(InputError, match=function):
        Transformer(CONFIG.model_copy(update={key: function}))


@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize("keys", [1, 3, 4, 5])
def test_one_query_for_a_few_keys_is_the_same_attention(monkeypatch, keys, scale):
    """Sums are used up to four keys if gradients are wanted; otherwise the fused operation is."""
    generator = torch.Generator().manual_seed(keys)
    q, k, v = (torch.randn(2, 3, length, 8, generator=generator, requires_grad=True) for length in (1, keys, keys))
    summed = []
    by_sums = attention_layer._one_query_for_few_keys
    monkeypatch.setattr(attention_layer, "_one_query_for_few_keys", lambda *args: summed.append(1) or by_sums(*args))
    mixed = attention_layer._fused(q, k, v, None, scale, 0.0, Visibility(causal=True))
    assert len(summed) == (keys <= 4)
    expected = attention(q, k, v, causal=True, scale=scale)
    torch.testing.assert_close(mixed, expected)
    upstream = torch.randn(mixed.shape, generator=generator)
    gradients = [torch.autograd.grad(out, (q, k, v), upstream, retain_graph=True) for out in (mixed, expected)]
    torch.testing.assert_close(*gradients)
    with torch.no_grad():
        attention_layer._fused(q, k, v, None, scale, 0.0, Visibility(causal=True))
    assert len(summed) == (keys <= 4)


def test_a_token_outside_the_vocabulary_is_refused_but_where_torch_func_hides_its_value():
    model = Transformer(TransformerConfig(layers=1, width=8, heads=2, context=4, vocabulary=5))
    tokens = torch.tensor([[[1, 2]], [[3, 4]]])
    assert torch.func.vmap(model)(tokens).shape == (2, 1, 2, 5)
    with pytest.raises(InputError, match="token 9 is not in the vocabulary of 5"):
        model(tokens[0] + 7)
