"""Slots: a model calls them in place of a function, whatever they hold."""

import copy
from collections import Counter

import pytest
import torch

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.errors import InputError
from trans4init.ablations.fit import fit
from trans4init.ablations.functions import Domain, get_function
from trans4init.ablations.nets import build_net
from trans4init.ablations.slots.contents import (
    FoldedPolyline,
    FoldedTable,
    NetContent,
    OutsideDomainError,
    TrainableTable,
)
from trans4init.ablations.slots.slot import Slot, observed_inputs, observed_ranges, sampled_inputs, slots_named
from trans4init.ablations.transformer import Transformer, TransformerConfig
from trans4init.kernels.positional_mlp import positional_mlp

POSITIONS = Domain(0, 7, integer=True)


def position_slot(function="sinusoidal", **options):
    return Slot("position", get_function(function), POSITIONS, width=4, **options)


def test_a_slot_begins_with_the_closed_form():
    positions = torch.arange(20)
    expected = get_function("sinusoidal").analytic(positions.double(), width=4).float()
    torch.testing.assert_close(position_slot()(positions), expected)
    inputs = torch.randn(2, 3)
    torch.testing.assert_close(Slot("activation", get_function("gelu"))(inputs), torch.nn.functional.gelu(inputs))


def test_inside_and_outside_of_the_fold_are_one_function():
    slot = position_slot()
    assert isinstance(slot.content, FoldedTable)
    torch.testing.assert_close(slot(torch.arange(8)), slot(torch.arange(9))[:8])
    torch.testing.assert_close(slot(torch.arange(8), highest=7), slot(torch.arange(8)))


def test_a_function_without_closed_form_begins_as_a_table_drawn_from_the_seed():
    one, same, other = (position_slot("learned-table", seed=seed) for seed in (0, 0, 1))
    assert isinstance(one.content, TrainableTable)
    assert torch.equal(one(torch.arange(8)), same(torch.arange(8)))
    assert not torch.equal(one(torch.arange(8)), other(torch.arange(8)))


@pytest.mark.parametrize("highest", [None, 8])
def test_a_table_has_no_value_beyond_its_end(highest):
    with pytest.raises(OutsideDomainError, match=r"0\.\.7 only"):
        position_slot("learned-table")(torch.arange(9), highest)


def test_a_fold_follows_the_weights_that_are_loaded():
    """A frozen net is tabulated once; loading other weights tabulates it again."""
    slot = position_slot()
    net = build_net("mlp-gelu", POSITIONS, 4)
    slot.content = slot.fold(NetContent(slot.function, slot.shape, net))
    other = build_net("mlp-gelu", POSITIONS, 4)
    other.initialise(torch.Generator().manual_seed(5))
    slot.content.load_state_dict({f"content.net.{name}": value for name, value in other.state_dict().items()})
    torch.testing.assert_close(slot(torch.arange(8)), other(torch.arange(8.0)))


def test_the_net_of_a_rounded_model_is_exact():
    """A bfloat16 model has a float32 net in its slot, and that net's lines; the values are rounded at the end."""
    function = get_function("gelu")
    content = NetContent(function, {}, build_net("mlp-relu", function.domain, 1, hidden=(9,)))
    folded = FoldedPolyline(copy.deepcopy(content)).bfloat16()
    assert (folded.content.net.weights[0].dtype, folded.kinks.dtype) == (torch.float32, torch.float32)
    inputs = torch.linspace(-9, 9, 1001)
    torch.testing.assert_close(folded.value(inputs), content.value(inputs), rtol=0, atol=1e-5)
    assert folded(inputs.bfloat16()).dtype == torch.bfloat16
    assert folded(inputs).dtype == torch.float32  # as a statistic is given, or a score


def test_the_dtype_is_the_models():
    slot = position_slot().double()
    assert slot(torch.arange(3)).dtype == torch.float64
    assert slot(torch.arange(30)).dtype == torch.float64


def test_drift_is_the_distance_from_the_closed_form():
    slot = position_slot()
    assert slot.drift() == pytest.approx((0, 0), abs=1e-7)
    slot.content = slot.table(torch.Generator())
    with torch.no_grad():
        slot.content.table[3, 1] += 0.5
    largest, rms = slot.drift()
    assert largest == pytest.approx(0.5, abs=1e-6)
    assert rms == pytest.approx(0.5 / 32**0.5, abs=1e-6)
    assert position_slot("learned-table").drift() is None


def test_a_net_with_the_wrong_outputs_is_refused():
    slot = position_slot()
    with pytest.raises(InputError, match="the net has 3 outputs and sinusoidal needs 4"):
        NetContent(slot.function, slot.shape, build_net("siren", POSITIONS, 3))


def test_a_function_in_the_wrong_slot_is_refused():
    with pytest.raises(InputError, match="gelu belongs in slot 'activation', not in 'position'"):
        Slot("position", get_function("gelu"))
    with pytest.raises(InputError, match="rope belongs in slot 'position', not in 'activation'"):
        Slot("activation", get_function("rope"))  # its shape, which this slot doesn't give either, matters less


def test_slots_are_found_by_name_and_a_missing_one_is_named():
    model = torch.nn.ModuleDict({"a": position_slot(), "b": Slot("activation", get_function("gelu"))})
    assert list(slots_named(model, "position")) == ["a"]
    with pytest.raises(InputError, match="no slot 'softmax'; its slots are: activation, position"):
        slots_named(model, "softmax")


def test_the_inputs_that_a_slot_really_gets_are_recorded():
    model = torch.nn.Sequential(Slot("activation", get_function("gelu")))
    with observed_ranges(model) as ranges:
        model(torch.tensor([-3.0, 1.0]))
        model(torch.tensor([0.0, 7.0]))
    assert ranges == {"0": (-3.0, 7.0)}
    model(torch.tensor([99.0]))
    assert ranges == {"0": (-3.0, 7.0)}


def test_a_fused_slot_is_observed_in_every_eighth_call_of_the_model_and_others_in_all():
    model = Transformer(TransformerConfig(layers=1, width=8, heads=2, context=8))
    seen = Counter()
    with observed_inputs(model, lambda path, _: seen.update([path])):
        for _ in range(17):
            model(model.example_inputs())
    model(model.example_inputs())
    assert {path: count for path, count in seen.items() if "activation" in path or path == "position"} == {
        "position": 17,
        "blocks.0.feed_forward.activation": 17,
    }
    assert {seen[f"blocks.0.{path}"] for path in ("attention.softmax", "attention.scale", "attention_norm.slot")} == {3}


def test_the_density_of_a_slot_s_inputs_is_what_a_fit_can_be_aimed_at():
    model = Transformer(TransformerConfig(layers=2, width=8, heads=2, context=8, softmax="softmax-row"))
    with sampled_inputs(model, each=64) as density:
        for _ in range(3):
            model(model.example_inputs())
    path = "blocks.0.feed_forward.activation"
    assert density[path].shape == (3 * 64,)
    assert torch.isfinite(density["blocks.1.attention.softmax"]).all()
    fitted = fit("gelu", "piecewise-linear", size={"pieces": 4}, density=density[path], steps=20, budget=40)
    observed = fitted.fidelity.regions[-1]
    even = fit("gelu", "piecewise-linear", size={"pieces": 4})
    error = even(density[path].double()) - torch.nn.functional.gelu(density[path].double())
    assert observed.region == "observed"
    assert observed.rms_error < error.square().mean().sqrt()


@pytest.mark.parametrize("arm", ["learned-from-scratch", "random-frozen", "analytic", "free-table"])
def test_positions_are_added_as_they_are_looked_up(arm, monkeypatch):
    """Both in values and gradients; a net that isn't folded adds its values in its operator's pass over embeddings."""
    fused = []

    def watched(*arguments, add_to=None, **options):
        fused.append(add_to is not None)
        return positional_mlp(*arguments, add_to=add_to, **options)

    monkeypatch.setattr("trans4init.ablations.nets.mlp.positional_mlp", watched)
    model = Transformer(TransformerConfig(layers=1, width=16, heads=2, vocabulary=8, context=8))
    net = build_net("fourier-mlp", Domain(0, 7, integer=True), 16, hidden=(8,))
    apply_arm(model, "position", arm, net if arm not in ("analytic", "free-table") else None)
    state, positions = torch.randn(3, 8, 16, requires_grad=True), torch.arange(8)
    leaves = [state, *(value for value in model.position.parameters() if value.requires_grad)]
    fused.clear()
    added = model.position.added_to(state, positions, highest=7)
    assert fused == ([True] if arm == "learned-from-scratch" else [])
    apart = state + model.position(positions, highest=7)
    assert torch.equal(added, apart)
    upstream = torch.randn_like(added)
    for one, other in zip(*(torch.autograd.grad(out, leaves, upstream) for out in (added, apart)), strict=True):
        torch.testing.assert_close(one, other)
