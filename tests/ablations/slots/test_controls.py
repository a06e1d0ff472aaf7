"""Control arms: they start as the closed form, and change it by as few numbers as they say."""

import copy
import math

import pytest
import torch

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.errors import InputError
from trans4init.ablations.fit import fit
from trans4init.ablations.functions import Domain, get_function, list_functions
from trans4init.ablations.nets import build_net
from trans4init.ablations.seeding import keyed_generator
from trans4init.ablations.slots.arms import get_arm, list_arms
from trans4init.ablations.slots.contents import NetContent
from trans4init.ablations.slots.controls import Shuffled
from trans4init.ablations.slots.slot import Slot, slots_named
from trans4init.ablations.transformer import Transformer, TransformerConfig
from trans4init.ablations.transformer.feed_forward import FeedForward
from trans4init.ablations.transformer.widened import widened

SIZES = {"layers": 2, "width": 8, "heads": 2, "vocabulary": 11, "context": 8}
TRAINED = ("scaled", "gained", "linear")
STARTS = [
    (name, arm) for name in list_functions() for arm in get_function(name).arms if arm in TRAINED
]  # fmt: skip
DESIGN = {
    "analytic", "learned-frozen", "learned-fine-tuned", "learned-from-scratch", "random-frozen", "free-table",
    "corrected", "frozen-exact-gradient", "none", "scaled", "gained", "linear", "matched", "shuffled",
}  # fmt: skip
"""The arms of the table in the project's design."""


def slot_of(name, size=8):
    """A slot for the function, outside of a model, and inputs that it may get, beyond its domain too."""
    function = get_function(name)
    shape = function.shape_in({"width": 8, "heads": 4, "head_dim": 8})
    first = int(function.domain.low)
    domain = Domain(first, first + size - 1, integer=True) if function.domain.integer else None
    slot = Slot(function.slot, function, domain, **shape)
    if function.domain.integer:
        return slot, torch.arange(first, first + 3 * size)
    points = function.points(function.domain, **shape).float()
    return slot, points if function.takes == "rows" else torch.cat([points, 1.5 * points])


def put_in(slot, arm, net=None, seed=0):
    slot.content = get_arm(arm).content(slot, net, seed, slot.name)
    return slot.content


def test_the_arms_are_those_of_the_design(run_command):
    assert set(list_arms()) == DESIGN
    code, output = run_command("ls", "arms")
    assert code == 0
    assert {line.split()[0] for line in output.splitlines()[1:] if line.strip()} >= DESIGN


@pytest.mark.parametrize(("name", "arm"), STARTS)
def test_a_trained_control_starts_as_the_closed_form_bit_for_bit(name, arm):
    slot, inputs = slot_of(name)
    closed = slot(inputs)
    put_in(slot, arm)
    assert torch.equal(slot(inputs), closed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("arm", TRAINED)
def test_it_does_in_other_dtypes_and_under_autocast(arm, dtype):
    slot, inputs = slot_of("sinusoidal")
    slot.to(dtype)
    closed = slot(inputs)
    slot.content = get_arm(arm).content(slot, None, 0, "position").to(slot.content.dtype_like)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(slot(inputs), closed)
    assert closed.dtype == dtype
    assert all(value.dtype in (torch.float32, torch.float64) for value in slot.content.parameters())


def test_scaled_is_an_amplitude_and_an_offset():
    slot, inputs = slot_of("gelu")
    content = put_in(slot, "scaled")
    with torch.no_grad():
        content.amplitude.fill_(1.5)
        content.offset.fill_(-0.25)
    torch.testing.assert_close(slot(inputs), 1.5 * torch.nn.functional.gelu(inputs) - 0.25)
    assert [value.shape for value in content.parameters()] == [(), ()]


def test_an_offset_gives_no_weight_to_the_padding_of_a_row():
    slot, _ = slot_of("softmax-row")
    content = put_in(slot, "scaled")
    with torch.no_grad():
        content.offset.fill_(0.5)
    row = torch.tensor([[0.0, -1.0, -math.inf]])
    expected = row.softmax(dim=-1) + torch.tensor([0.5, 0.5, 0.0])
    torch.testing.assert_close(slot(row), expected)


@pytest.mark.parametrize(
    ("name", "count"), [("sinusoidal", 8), ("sinusoidal-2d", 8), ("alibi", 4), ("fire-query", 4), ("head-mixing", 4)]
)
def test_there_is_a_gain_for_each_dimension_or_head(name, count):
    slot, inputs = slot_of(name)
    closed = slot(inputs)
    content = put_in(slot, "gained")
    gains = torch.linspace(0.5, 2, count)
    with torch.no_grad():
        content.gains.copy_(gains)
    by_dimension = gains if closed.shape[-1] == count and closed.shape[0] != count else gains.reshape(-1, 1)
    torch.testing.assert_close(slot(inputs), closed * by_dimension)


@pytest.mark.parametrize("name", ["rope", "rope-partial", "xpos"])
def test_a_gained_rotation_is_a_scaled_rotation(name):
    """A pair's cosine and sine are multiplied by the same; the scale of xPos stays, since it would cancel."""
    slot, inputs = slot_of(name)
    closed = slot(inputs)
    content = put_in(slot, "gained")
    pairs = get_function(name).pairs(**slot.shape)
    gains = torch.linspace(0.5, 2, pairs)
    with torch.no_grad():
        content.gains.copy_(gains)
    values = slot(inputs)
    for part in range(2):
        place = slice(part * pairs, (part + 1) * pairs)
        torch.testing.assert_close(values[:, place], closed[:, place] * gains)
    assert torch.equal(values[:, 2 * pairs :], closed[:, 2 * pairs :])


@pytest.mark.parametrize("name", ["sinusoidal", "alibi"])
def test_linear_maps_each_row(name):
    slot, inputs = slot_of(name)
    rows = slot.function.as_rows(slot(inputs))
    content = put_in(slot, "linear")
    matrix = torch.randn(content.map.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        content.map.copy_(matrix)
    torch.testing.assert_close(slot.function.as_rows(slot(inputs)), rows @ matrix.T)


@pytest.fixture(scope="module")
def fitted():
    """A net fitted to positions of three times the slot's length."""
    return fit("sinusoidal", "fourier-mlp", domain=Domain(0, 23, integer=True), width=8, steps=30)


def test_shuffled_has_the_fitted_rows_in_another_order(fitted):
    """In training the rows of the training positions, each once; beyond, each stretch has its own rows."""
    slot, inputs = slot_of("sinusoidal")
    own = NetContent(slot.function, slot.shape, fitted.net)(inputs)
    content = put_in(slot, "shuffled", fitted.net, seed=3)
    values = slot(inputs)
    order = torch.randperm(8, generator=keyed_generator(3, "position", "order"))
    assert not torch.equal(order, torch.arange(8))
    for stretch in range(3):
        torch.testing.assert_close(values[8 * stretch : 8 * stretch + 8], own[8 * stretch + order], rtol=0, atol=1e-5)
    torch.testing.assert_close(slot(inputs[:8], highest=7), values[:8], rtol=0, atol=1e-6)
    other = copy.deepcopy(slot)
    put_in(other, "shuffled", fitted.net, seed=4)
    assert not torch.equal(other(inputs), values)
    assert set(content.state_dict()) >= {"content.order"}


def test_shuffled_takes_no_row_from_where_the_net_was_never_fitted(fitted):
    """Fitted to 0–23: of the stretches of ten positions the third is fitted to in part, and keeps its order."""
    slot, _ = slot_of("sinusoidal")
    content = NetContent(slot.function, slot.shape, fitted.net)
    shuffled = Shuffled(content, Domain(0, 9, integer=True), torch.Generator().manual_seed(0))
    own, values = content(inputs := torch.arange(40.0)), shuffled(inputs)
    order = shuffled.order
    torch.testing.assert_close(values[:20], own[torch.cat([order, 10 + order])])
    torch.testing.assert_close(values[20:30], own[20:30])
    torch.testing.assert_close(values[30:], own[30 + order])


def test_the_order_of_a_shuffled_slot_is_loaded_with_its_weights(fitted):
    first, inputs = slot_of("sinusoidal")
    second, _ = slot_of("sinusoidal")
    put_in(first, "shuffled", fitted.net, seed=3)
    put_in(second, "shuffled", fitted.net, seed=4)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(inputs), second(inputs))


def test_a_domain_that_starts_at_one_is_reordered_from_there():
    function = get_function("scalable-softmax")
    net = build_net("mlp-gelu", Domain(1, 12, integer=True), 1, hidden=(4,))
    plain = NetContent(function, {"head_dim": 8}, net)
    shuffled = Shuffled(plain, Domain(1, 4, integer=True), torch.Generator().manual_seed(1))
    keys = torch.arange(1, 9).float()
    assert sorted(shuffled.value(keys[:4]).tolist()) == sorted(plain.value(keys[:4]).tolist())
    assert sorted(shuffled.value(keys[4:]).tolist()) == sorted(plain.value(keys[4:]).tolist())
    assert not torch.equal(shuffled.value(keys), plain.value(keys))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gated": True, "bias": True, "feed_forward": 5},
        {"kind": "encoder-decoder", "encoder_layers": 1},
        {"kind": "image", "image_size": 8, "patch": 4, "classes": 3},
    ],
)
def test_a_widened_model_starts_as_the_plain_one(changes):
    """With the same values where the plain model has any, and no more new ones than the layers' evenness asks for."""
    config = TransformerConfig(**SIZES | changes)
    plain, wide = Transformer(config, seed=3).eval(), widened(config, 100, seed=3).eval()
    inputs = plain.example_inputs()
    outputs = [model(**inputs) if isinstance(inputs, dict) else model(inputs) for model in (plain, wide)]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-5)  # sums of more terms, which are 0
    values = dict(wide.named_parameters())
    for name, value in plain.named_parameters():
        place = tuple(slice(0, length) for length in value.shape)
        assert torch.equal(values[name][place], value), name
    added = sum(value.numel() for value in values.values()) - sum(value.numel() for value in plain.parameters())
    layers = sum(isinstance(module, FeedForward) for module in plain.modules())
    unit = config.width * (3 if config.gated else 2) + config.bias * (2 if config.gated else 1)
    assert 100 <= added < 100 + layers * unit
    assert added % (layers * unit) == 0


def test_the_new_units_of_a_widened_model_learn():
    config = TransformerConfig(**SIZES)
    wide = widened(config, 1)
    before = copy.deepcopy(wide.state_dict())
    optimiser = torch.optim.Adam(wide.parameters(), lr=1e-3)
    for _ in range(2):
        optimiser.zero_grad()
        wide(wide.example_inputs()).square().mean().backward()
        optimiser.step()
    for name, value in wide.state_dict().items():
        if name.endswith("out.weight") and "feed_forward" in name:
            assert not torch.equal(value[:, 32:], before[name][:, 32:])
        if name.endswith("up.weight"):
            assert not torch.equal(value[32:], before[name][32:])


def test_matched_is_refused_by_name_and_leaves_the_model_alone():
    model = Transformer(TransformerConfig(**SIZES))
    before = [slot.content for slot in slots_named(model, "activation").values()]
    with pytest.raises(
        InputError, match=r"^arm 'matched' has wider feed-forward layers, .*: a study makes such a model\.$"
    ):
        apply_arm(model, "activation", "matched", build_net("mlp-relu", Domain(-4, 4, integer=False), 1))
    assert [slot.content for slot in slots_named(model, "activation").values()] == before
