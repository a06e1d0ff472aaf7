"""Tests of what a model gives to its position function: the grid of an image, a base, a pairing, trained numbers."""

import pytest
import torch

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import get_function
from trans4init.ablations.nets import build_net
from trans4init.ablations.slots.guard import FrozenGuard
from trans4init.ablations.transformer import Transformer, TransformerConfig

SIZES = {"layers": 2, "width": 16, "heads": 2, "vocabulary": 11, "context": 12}
TOKENS = torch.randint(11, (3, 9), generator=torch.Generator().manual_seed(0))


def decoder(seed=0, **changes):
    return Transformer(TransformerConfig(**SIZES | changes), seed=seed)


@pytest.mark.parametrize("pooling", ["mean", "first"])
@torch.no_grad()
def test_an_images_grid_is_its_own_and_its_class_token_has_zeros(pooling):
    sizes = {"kind": "image", "image_size": 12, "patch": 2, "classes": 3, "pooling": pooling}
    model = decoder(position="sinusoidal-2d", **sizes)
    tokens = int(pooling == "first")
    values = model.position(torch.arange(36 + tokens))
    assert torch.equal(values[:tokens], torch.zeros(tokens, 16))
    waves = get_function("sinusoidal").analytic(torch.arange(6.0), width=8)
    halves = torch.cat([waves[:, 0::2], waves[:, 1::2]], dim=-1)
    for row in range(6):
        for column in range(6):
            expected = torch.cat([halves[column], halves[row]])
            torch.testing.assert_close(values[tokens + 6 * row + column], expected)


@torch.no_grad()
def test_a_rotary_base_reaches_the_function():
    model = decoder(position="rope", rotary_base=500000)
    expected = get_function("rope").analytic(torch.arange(12.0), head_dim=8, base=500000)
    torch.testing.assert_close(model.position(torch.arange(12)), expected)
    assert (model(TOKENS) - decoder(position="rope")(TOKENS)).abs().max() > 1e-4
    assert decoder(position="rope").position.shape == {"head_dim": 8}
    assert torch.equal(decoder(position="rope", rotary_base=10000)(TOKENS), decoder(position="rope")(TOKENS))


@torch.no_grad()
@pytest.mark.parametrize("position", ["rope", "rope-partial", "xpos"])
def test_interleaved_pairs_are_pairs_of_halves_in_another_order_of_dimensions(position):
    halves = decoder(position=position, width=32).eval()
    interleaved = decoder(position=position, width=32, rotary_pairing="interleaved").eval()
    assert (interleaved(TOKENS) - halves(TOKENS)).abs().max() > 1e-4
    pairs = halves.blocks[0].attention.pairs
    order = torch.arange(16)  # what is at place i of the halves is at place order[i] of the interleaved head
    order[:pairs], order[pairs : 2 * pairs] = torch.arange(0, 2 * pairs, 2), torch.arange(1, 2 * pairs, 2)
    for block in interleaved.blocks:
        weight = block.attention.queries_keys_values.weight
        queries_and_keys = weight[:64].view(4, 16, 32)
        reordered = torch.empty_like(queries_and_keys)
        reordered[:, order] = queries_and_keys
        weight[:64] = reordered.view(64, 32)
    torch.testing.assert_close(interleaved(TOKENS), halves(TOKENS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("change", [{"rotary_base": 500000}, {"rotary_pairing": "interleaved"}])
def test_settings_of_rotary_positions_are_refused_for_others(change):
    with pytest.raises(InputError, match="rotary_base and rotary_pairing are for rotary positions, not for alibi"):
        decoder(position="alibi", **change)
    assert set(TransformerConfig(**SIZES).model_dump()) & set(change) == set()  # older studies keep their hashes
    assert TransformerConfig(**SIZES | change).model_dump().items() >= change.items()


def test_fire_starts_with_the_papers_curvature_and_threshold_and_trains_them():
    model = decoder(position="fire-query")
    numbers = dict(model.position.numbers.items())
    assert {name: value.item() for name, value in numbers.items()} == pytest.approx(
        {"curvature": 0.1, "threshold_factor": 1.0}
    )
    function = get_function("fire-query")
    positions = torch.tensor([0, 3, 700])
    plain = function.pair_inputs(positions)
    torch.testing.assert_close(function.pair_inputs(positions, **numbers), plain)
    assert plain[2, 1].item() == pytest.approx(torch.log1p(torch.tensor(69.7)).div(torch.tensor(71.0).log()).item())
    doubled = function.pair_inputs(positions, threshold_factor=torch.tensor(-2.0))
    squeezed = torch.log1p(torch.tensor(0.3)) / torch.log1p(torch.tensor(102.4))
    assert doubled[1, 0].item() == pytest.approx(squeezed.item())
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    model(TOKENS).square().mean().backward()
    assert all(value.grad.abs() > 0 for value in numbers.values())
    optimiser.step()
    assert all(value.item() != start for value, start in zip(numbers.values(), (0.1, 1.0), strict=True))


def test_fires_numbers_move_with_the_model_and_its_frozen_net_does_not():
    model = decoder(position="fire-query")
    net = build_net("mlp-relu", model.position.domain, 2, hidden=(32,))
    guard = FrozenGuard(model, apply_arm(model, "position", "random-frozen", net))
    before = model(TOKENS)
    optimiser = torch.optim.SGD([p for p in model.position.parameters() if p.requires_grad], lr=10.0)
    before.square().mean().backward()
    optimiser.step()
    guard.check()
    assert not torch.equal(model(TOKENS), before)


def test_fires_numbers_have_a_gradient_of_zero_where_it_is_left_out():
    model = decoder(position="fire-query")
    apply_arm(model, "position", "none")
    torch.testing.assert_close(model(TOKENS), decoder(position="none")(TOKENS))
    model(TOKENS).square().mean().backward()
    assert [value.grad.item() for value in model.position.numbers.values()] == [0, 0]


def test_every_other_position_has_no_numbers_of_its_own():
    for position in ("sinusoidal", "rope", "fire", "t5"):
        assert len(decoder(position=position).position.numbers) == 0
