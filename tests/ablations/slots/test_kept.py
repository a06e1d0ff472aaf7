"""What is kept of slots: their state, and their values beside the closed form's, in a file that numpy can read."""

import pytest
import torch

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.fit import fit
from trans4init.ablations.functions import Domain, get_function
from trans4init.ablations.nets import build_net
from trans4init.ablations.slots.kept import kept_slots
from trans4init.ablations.slots.slot import slots_named
from trans4init.ablations.transformer import Transformer, TransformerConfig
from trans4init.reports.records.kept_slots import read_kept, write_kept

SIZES = {"layers": 2, "width": 8, "heads": 4, "vocabulary": 11, "context": 6}


def kept(model, record, folder):
    content = kept_slots(model, record, {"arm": record.arm, "seed": 7})
    write_kept(folder, "evaluate-1", content)
    return read_kept(folder, "evaluate-1")


def test_values_are_the_slots_and_the_closed_form_s_at_the_stated_inputs(tmp_path):
    model = Transformer(TransformerConfig(**SIZES))
    record = apply_arm(model, "position", "gained")
    with torch.no_grad():
        model.position.content.gains.copy_(torch.linspace(0.5, 2, 8))
    slots = kept(model, record, tmp_path)
    closed = get_function("sinusoidal").analytic(torch.arange(6.0), width=8)
    assert slots.inputs.tolist() == list(range(6))
    torch.testing.assert_close(torch.tensor(slots.closed), closed)
    torch.testing.assert_close(torch.tensor(slots.values["position"]), closed * torch.linspace(0.5, 2, 8))
    assert slots.state["position/gains"].tolist() == torch.linspace(0.5, 2, 8).tolist()
    assert {key: slots.header[key] for key in ("arm", "seed", "slot", "shape", "integer")} == {
        "arm": "gained", "seed": 7, "slot": "position", "shape": {"width": 8}, "integer": True
    }  # fmt: skip


def test_every_slot_of_that_name_has_values_of_its_own(tmp_path):
    model = Transformer(TransformerConfig(**SIZES))
    record = apply_arm(model, "activation", "scaled")
    for factor, place in enumerate(slots_named(model, "activation").values(), start=2):
        with torch.no_grad():
            place.content.amplitude.fill_(factor)
    slots = kept(model, record, tmp_path)
    domain = get_function("gelu").domain
    assert (slots.inputs[0], slots.inputs[-1]) == (domain.low, domain.high)
    for factor in (2, 3):
        path = f"blocks.{factor - 2}.feed_forward.activation"
        torch.testing.assert_close(torch.tensor(slots.values[path]), factor * torch.tensor(slots.closed))
        assert slots.state[f"{path}/amplitude"] == factor


@pytest.mark.parametrize(
    ("function", "arm", "outputs"), [("alibi", "linear", 4), ("fire-query", "gained", 4), ("rope", "scaled", 2)]
)
def test_rows_have_the_values_of_an_input_together(function, arm, outputs, tmp_path):
    model = Transformer(TransformerConfig(**SIZES | {"position": function}))
    slots = kept(model, apply_arm(model, "position", arm), tmp_path)
    assert slots.closed.shape == slots.values["position"].shape == (len(slots.inputs), outputs)
    torch.testing.assert_close(torch.tensor(slots.values["position"]), torch.tensor(slots.closed))


def test_a_long_domain_is_sampled_evenly(tmp_path):
    model = Transformer(TransformerConfig(**SIZES | {"context": 300}))
    slots = kept(model, apply_arm(model, "position", "scaled"), tmp_path)
    assert slots.inputs.tolist() == list(range(0, 300, 5))


def test_a_net_s_state_is_enough_to_make_the_slot_again(tmp_path):
    """Also the order of a shuffled one, and what a frozen net is folded to."""
    fitted = fit("sinusoidal", "fourier-mlp", domain=Domain(0, 23, integer=True), width=8, steps=5)
    model, other = Transformer(TransformerConfig(**SIZES)), Transformer(TransformerConfig(**SIZES))
    slots = kept(model, apply_arm(model, "position", "shuffled", fitted, seed=1), tmp_path)
    apply_arm(other, "position", "shuffled", fitted, seed=2)
    state = {name.removeprefix("position/"): torch.tensor(value) for name, value in slots.state.items()}
    other.position.content.load_state_dict(state)
    positions = torch.arange(20)
    assert torch.equal(other.position(positions), model.position(positions))


def test_a_function_of_rows_or_vectors_is_kept_without_values(tmp_path):
    model = Transformer(TransformerConfig(**SIZES))
    slots = kept(model, apply_arm(model, "head-mixing", "gained"), tmp_path)
    assert (slots.inputs, slots.closed, slots.values) == (None, None, {})
    assert slots.state["blocks.1.attention.head_mixing/gains"].tolist() == [1, 1, 1, 1]


def test_a_table_without_a_closed_form_has_values_alone(tmp_path):
    model = Transformer(TransformerConfig(**SIZES | {"position": "learned-table"}))
    slots = kept(model, apply_arm(model, "position", "free-table"), tmp_path)
    assert slots.closed is None
    assert torch.equal(torch.tensor(slots.values["position"]), model.position.content.table)


@pytest.mark.parametrize("arm", ["analytic", "none"])
def test_nothing_is_kept_of_a_slot_without_a_state(arm):
    model = Transformer(TransformerConfig(**SIZES))
    assert kept_slots(model, apply_arm(model, "position", arm), {}) is None


def test_a_rounded_model_s_slots_are_kept_in_float32(tmp_path):
    model = Transformer(TransformerConfig(**SIZES))
    net = build_net("mlp-relu", Domain(-4, 4, integer=False), 1, hidden=(4,))
    record = apply_arm(model, "activation", "learned-from-scratch", net)
    slots = kept(model.bfloat16(), record, tmp_path)
    arrays = [slots.inputs, slots.closed, *slots.values.values(), *slots.state.values()]
    assert {str(array.dtype) for array in arrays} == {"float32"}
