"""Arms: for every function and arm, training moves what the arm says, nothing else, and the record lists it."""

import copy
import dataclasses
import math

import pytest
import torch

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.errors import InputError
from trans4init.ablations.fit import Fitted, fit
from trans4init.ablations.functions import Domain, get_function, list_functions
from trans4init.ablations.nets import build_net, list_nets, net_class
from trans4init.ablations.seeding import keyed_generator
from trans4init.ablations.slots.arms import get_arm, list_arms
from trans4init.ablations.slots.contents import FoldedPolyline, OutsideDomainError
from trans4init.ablations.slots.guard import FrozenGuard, FrozenMovedError
from trans4init.ablations.slots.slot import Slot, observed_ranges, slots_named
from trans4init.ablations.transformer import Transformer, TransformerConfig
from trans4init.ablations.transformer.widened import widened

SIZES = {"layers": 2, "width": 8, "heads": 2, "vocabulary": 11, "context": 8}
USED = [name for name in list_functions() if get_function(name).arms]
CASES = [
    (name, arm)
    for name in ("sinusoidal", "gelu", "none", "learned-table")
    for arm in get_function(name).arms
    if not get_arm(arm).widens
]
MATRIX = [
    (name, net)
    for name in USED
    for net in list_nets()
    if any(get_arm(arm).uses_net for arm in get_function(name).arms)
    and net_class(net).takes == get_function(name).takes
]


@pytest.fixture(scope="module")
def fitted():
    """Fitted nets, by the name of their function."""
    return {
        "sinusoidal": fit("sinusoidal", "fourier-mlp", domain=Domain(0, 31, integer=True), width=8, steps=50),
        "gelu": fit("gelu", "mlp-relu", size={"hidden": (16,)}),
    }


CHANGED = ("corrected", "scaled", "gained", "linear")
"""The arms that begin as the closed form and move away from it."""
ALIVE = {"mlp-relu": {"hidden": (8,)}, "deep-set": {}}
"""Sizes at which some unit is not 0 on what a slot is given: none of the few of the smallest net need be."""


def quickly_fitted(name, net, record):
    """Return a net whose last layer was solved for, without training, with the fidelity record of another fit."""
    function, sizes = get_function(name), TransformerConfig(**SIZES).shapes()
    shape = {key: sizes[key] for key in function.default_shape}
    domain = Domain(int(function.domain.low), 15, integer=True) if function.domain.integer else function.domain
    built = build_net(net, domain, function.outputs(**shape), **ALIVE.get(net, net_class(net).atlas_sizes[0]))
    points = function.points(domain, **shape)
    rows = function.as_rows(function.analytic(points, **shape))
    built.solve_output(points, rows.log() if function.log_values else rows)
    return Fitted(function, shape, built, 0, record)


def model_with(function, seed=0, **options):
    key = get_function(function).slot.replace("-", "_")
    return Transformer(TransformerConfig(**SIZES | options | {key: function}), seed=seed)


def made(name, arm, net, **options):
    """Return a model with the arm in it and the record of the arm, as a study makes both, and as many values as `net`.

    A widened model is one of a study's alone: its record says that nothing in the slot moves.
    """
    model = model_with(name, **options)
    slot = get_function(name).slot
    if get_arm(arm).widens:
        model = widened(model.config, len(slots_named(model, slot)) * net.net.parameter_count())
        return model, dataclasses.replace(apply_arm(model, slot, "analytic"), arm=arm)
    return model, apply_arm(model, slot, arm, net if get_arm(arm).uses_net else None)


def put(model, function, arm, fitted, seed=0):
    net = fitted[function] if get_arm(arm).uses_net else None
    return apply_arm(model, get_function(function).slot, arm, net, seed=seed)


def train(model, record, steps=3):
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3, eps=1e-20)
    for step in range(steps):
        tokens = torch.randint(11, (4, 9), generator=torch.Generator().manual_seed(step))
        logits = model(tokens[:, :-1])
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        assert torch.isfinite(loss)
        loss.backward()
        optimiser.step()


def check_arm(name, arm, net):
    """Apply the arm and train three steps; check what moved, what didn't, and that input ranges were recorded."""
    model, record = made(name, arm, net, layers=1)
    assert (record.function, record.arm) == (name, arm)
    assert bool(record.moves) == get_arm(arm).trains
    if "analytic" in get_function(name).arms:
        assert math.isfinite(record.output_difference_max)
        if arm in ("analytic", "matched", *CHANGED):  # a fused operation may round otherwise
            assert record.output_difference_max <= (1e-5 if get_function(name).fused else 0)
    before = {name: value.clone() for name, value in model.named_parameters()}
    guard = FrozenGuard(model, record)
    with observed_ranges(model) as ranges:
        train(model, record)
    guard.check()
    after = dict(model.named_parameters())
    still = [name for name in record.moves if torch.equal(before[name], after[name])]
    if "bias" in get_function(name).role:  # the same number on all scores of a row changes nothing
        still = [name for name in still if not name.endswith((".bias", ".biases.1", ".biases.2", ".offset"))]
    assert still == []
    assert all(torch.equal(before[name], after[name]) for name in record.frozen)
    assert all(after[name].grad is None for name in record.frozen)
    in_slots = {name for name in after if ".content." in name}
    assert {*record.moves, *record.frozen} <= in_slots
    moving = set(after) - in_slots
    if arm == "none":  # the numbers that a left-out function's inputs are computed by change nothing
        moving = {name for name in moving if ".numbers." not in name}
    assert [name for name in moving if torch.equal(before[name], after[name])] == []
    called = {path for path, module in model.named_modules() if isinstance(module, Slot)}
    if get_function(name).takes == "rows":  # leaves nothing to divide by
        called -= {path for path in called if path.endswith("softmax_reciprocal")}
    assert set(ranges) == called
    assert all(math.isfinite(low) and low <= high for low, high in ranges.values())


@pytest.mark.parametrize(("function", "net"), MATRIX)
def test_what_may_move_moves_and_what_may_not_does_not(function, net, fitted):
    """Every arm with a net, for every function and net."""
    known = quickly_fitted(function, net, fitted["gelu"].fidelity)
    for arm in get_function(function).arms:
        if get_arm(arm).uses_net:
            check_arm(function, arm, known)


def test_fixed_frequencies_stay_where_they_are_when_the_rest_is_fine_tuned():
    fitted = fit("sinusoidal", "fourier-mlp", size={"hidden": (8,), "frequencies": 4, "fixed": True}, steps=5, width=8)
    check_arm("sinusoidal", "learned-fine-tuned", fitted)
    model = model_with("sinusoidal")
    record = put(model, "sinusoidal", "learned-fine-tuned", {"sinusoidal": fitted})
    train(model, record)
    assert torch.equal(model.position.content.net.frequencies, fitted.net.frequencies)
    assert not any("frequencies" in name for name in record.moves)


@pytest.mark.parametrize("function", USED)
def test_arms_without_a_net_move_what_they_say(function):
    for arm in get_function(function).arms:
        if not get_arm(arm).uses_net:
            check_arm(function, arm, None)


def test_every_function_net_and_arm_is_in_the_matrix():
    assert {name for name, _ in MATRIX} == {name for name in USED if get_function(name).fittable()} | {"head-mixing"}


@pytest.mark.parametrize("function", ["sinusoidal", "gelu"])
def test_corrected_is_analytic_at_step_zero_and_not_after(function, fitted):
    model, reference = model_with(function), model_with(function)
    record = put(model, function, "corrected", fitted)
    tokens = model.example_inputs()
    assert torch.equal(model(tokens), reference(tokens))
    assert record.output_difference_max == 0
    train(model, record)
    drifts = [slot.drift()[0] for slot in slots_named(model, record.slot).values()]
    assert max(drifts) > 0


def test_a_correction_that_does_not_start_at_zero_is_refused(monkeypatch):
    net = build_net("siren", Domain(0, 7, integer=True), 8, hidden=(4,))
    monkeypatch.setattr(type(net), "zero_output", lambda self: None)
    with pytest.raises(InputError, match="siren is not 0 after zero_output"):
        apply_arm(Transformer(TransformerConfig(layers=1, width=8, heads=2, context=8)), "position", "corrected", net)


@pytest.mark.parametrize(("function", "arm"), CASES)
def test_the_output_difference_is_that_of_the_models(function, arm, fitted):
    if "analytic" not in get_function(function).arms:
        pytest.skip("no closed form to differ from")
    model, reference = model_with(function), model_with(function)
    record = put(model, function, arm, fitted)
    difference = model(model.example_inputs()) - reference(model.example_inputs())
    assert record.output_difference_max == pytest.approx(difference.abs().max().item())
    assert record.output_difference_rms == pytest.approx(difference.square().mean().sqrt().item(), rel=1e-5)
    if arm in ("analytic", "free-table", *CHANGED):
        assert record.output_difference_max <= 1e-6
    elif get_arm(arm).needs_fit and arm != "shuffled":
        assert 0 < record.output_difference_max < 1
    elif function != "none":
        assert record.output_difference_max > 1e-3


def test_frozen_and_fine_tuned_start_from_the_same_net_and_leave_it_alone(fitted):
    frozen, tuned = model_with("sinusoidal"), model_with("sinusoidal")
    kept = {name: value.clone() for name, value in fitted["sinusoidal"].net.state_dict().items()}
    put(frozen, "sinusoidal", "learned-frozen", fitted)
    record = put(tuned, "sinusoidal", "learned-fine-tuned", fitted)
    torch.testing.assert_close(frozen(frozen.example_inputs()), tuned(tuned.example_inputs()), rtol=0, atol=1e-5)
    train(tuned, record)
    assert all(torch.equal(kept[name], value) for name, value in fitted["sinusoidal"].net.state_dict().items())


def test_scratch_and_random_frozen_share_their_random_start_by_seed(fitted):
    scratch, frozen, other = (model_with("sinusoidal") for _ in range(3))
    put(scratch, "sinusoidal", "learned-from-scratch", fitted, seed=3)
    put(frozen, "sinusoidal", "random-frozen", fitted, seed=3)
    put(other, "sinusoidal", "random-frozen", fitted, seed=4)
    positions = torch.arange(8)
    torch.testing.assert_close(scratch.position(positions), frozen.position(positions), rtol=0, atol=1e-5)
    assert not torch.allclose(frozen.position(positions), other.position(positions))


def test_each_layer_has_a_net_of_its_own(fitted):
    model = model_with("gelu")
    record = put(model, "gelu", "learned-fine-tuned", fitted)
    assert record.parameters_added == 2 * fitted["gelu"].net.parameter_count()
    assert {name.split(".")[1] for name in record.moves} == {"0", "1"}


def test_slots_compose():
    """With two slots of a model replaced, each record lists its own parameters."""
    model = model_with("sinusoidal")
    first = apply_arm(model, "position", "free-table")
    net = build_net("mlp-gelu", Domain(-4, 4, integer=False), 1)
    second = apply_arm(model, "activation", "learned-from-scratch", net)
    assert all(name.startswith("position.") for name in first.moves)
    assert all("activation" in name for name in second.moves)
    guard = FrozenGuard(model, first)
    train(model, second)
    guard.check()


def test_applying_another_arm_starts_from_the_closed_form_again(fitted):
    model = model_with("sinusoidal")
    put(model, "sinusoidal", "none", fitted)
    record = put(model, "sinusoidal", "corrected", fitted)
    assert record.output_difference_max == 0


def test_a_frozen_net_is_watched_bit_by_bit(fitted):
    model = model_with("sinusoidal")
    record = put(model, "sinusoidal", "learned-frozen", fitted)
    guard = FrozenGuard(model, record)
    guard.check()
    weight = model.get_parameter(record.frozen[0])
    with torch.no_grad():
        flat = weight.view(-1)
        flat[0] = torch.nextafter(flat[0], torch.tensor(torch.inf))
    with pytest.raises(FrozenMovedError, match="moved in training"):
        guard.check()


def test_a_frozen_net_that_would_get_a_gradient_is_noticed(fitted):
    model = model_with("sinusoidal")
    guard = FrozenGuard(model, put(model, "sinusoidal", "learned-frozen", fitted))
    model.position.content.requires_grad_(True)
    with pytest.raises(FrozenMovedError, match="takes part in the gradient"):
        guard.check()


def test_the_table_of_a_frozen_net_is_watched_too(fitted):
    model = model_with("sinusoidal")
    guard = FrozenGuard(model, put(model, "sinusoidal", "learned-frozen", fitted))
    model.position.content.table[0, 0] += 1
    with pytest.raises(FrozenMovedError, match="table"):
        guard.check()


@pytest.mark.parametrize(
    ("slot", "arm", "net", "sentence"),
    [
        ("softmx", "analytic", None, "no slot 'softmx'"),
        ("position", "learned-frosen", None, "unknown arm 'learned-frosen'; did you mean 'learned-frozen'"),
        ("position", "learned-frozen", None, "needs a fitted net"),
        ("position", "learned-frozen", "bare", "needs a fitted net"),
        ("position", "corrected", None, "needs a net"),
        ("position", "shuffled", "bare", "needs a fitted net"),
        ("position", "matched", "bare", "arm 'matched' has wider feed-forward layers"),
        ("activation", "gained", None, "arm 'gained' makes no sense for gelu; its arms are: analytic"),
        ("activation", "free-table", None, "arm 'free-table' makes no sense for gelu; its arms are: analytic"),
    ],
)
def test_bad_arms_are_refused_and_leave_the_model_alone(slot, arm, net, sentence):
    model = model_with("sinusoidal")
    bare = build_net("siren", Domain(0, 7, integer=True), 8) if net else None
    before = model(model.example_inputs())
    with pytest.raises(InputError) as caught:
        apply_arm(model, slot, arm, bare)
    assert sentence in str(caught.value)
    assert torch.equal(model(model.example_inputs()), before)


@pytest.mark.parametrize(
    ("inputs", "error"),
    [
        (torch.zeros(1, 9, dtype=torch.int64), OutsideDomainError),
        (torch.full((1, 2), 99), InputError),
        ({"nothing": torch.zeros(1, 1)}, TypeError),
    ],
)
def test_inputs_that_the_model_can_not_take_leave_it_as_it_was(inputs, error):
    """Positions beyond its table, tokens beyond its vocabulary, or an unknown argument."""
    model = model_with("learned-table")
    before = [place.content for place in slots_named(model, "activation").values()]
    with pytest.raises(error):
        apply_arm(model, "activation", "none", inputs=inputs)
    assert model.training
    assert [place.content for place in slots_named(model, "activation").values()] == before


@pytest.mark.parametrize("scaled", [True, False])
def test_a_learned_table_stays_the_one_that_the_model_has(scaled):
    """Whether it was drawn to suit the scale of the embeddings, or loaded."""
    model = model_with("learned-table", embedding_scale=scaled)
    before = model.position.content.table.detach().clone()
    record = apply_arm(model, "position", "free-table", seed=0)
    assert torch.equal(model.position.content.table, before)
    assert (record.moves, record.parameters_added) == (("position.content.table",), before.numel())
    drawn = model.position.table(keyed_generator(0, "position", "table")).table
    assert torch.equal(before, drawn if scaled else drawn / math.sqrt(SIZES["width"]))


def test_any_model_with_a_slot_will_do():
    """A model needs nothing but a slot, and inputs to compare on."""

    class Other(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model_with("gelu").blocks[0].feed_forward

        def forward(self, x):
            return self.inner(x)

    record = apply_arm(Other(), "activation", "none", inputs=torch.randn(2, 3, 8))
    assert record.output_difference_max > 0
    with pytest.raises(InputError, match="has no example_inputs"):
        apply_arm(Other(), "activation", "none")


def test_every_arm_of_the_vocabulary_has_a_content():
    known = {arm for function in list_functions() for arm in get_function(function).arms}
    assert known == set(list_arms())


def test_many_slots_at_once(fitted):
    """With every slot of a model replaced, each record lists its own parameters, and nothing frozen moves."""
    model = model_with("alibi")
    wanted = {
        "position": ("learned-frozen", "alibi", "piecewise-linear"),
        "activation": ("frozen-exact-gradient", "gelu", "mlp-relu"),
        "softmax": ("learned-fine-tuned", "softmax-exp", "piecewise-linear"),
        "normalization": ("learned-frozen", "layernorm-rsqrt", "mlp-gelu"),
        "scale": ("free-table", "attention-scale", None),
        "head-mixing": ("corrected", "head-mixing", "linear"),
    }
    records = []
    for slot, (arm, name, net) in wanted.items():
        known = quickly_fitted(name, net, fitted["gelu"].fidelity) if net else None
        records.append(apply_arm(model, slot, arm, known))
    guards = [FrozenGuard(model, record) for record in records]
    before = {name: value.clone() for name, value in model.named_parameters()}
    train(model, records[0])
    for guard in guards:
        guard.check()
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved & {name for record in records for name in record.frozen} == set()
    assert {name for record in records for name in record.moves} <= moved


def test_a_whole_row_leaves_no_use_for_a_reciprocal(fitted):
    """The error names the slot, whichever arm comes second, and the model is left as it was."""
    row = quickly_fitted("softmax-row", "deep-set", fitted["gelu"].fidelity)
    one = quickly_fitted("reciprocal", "mlp-gelu", fitted["gelu"].fidelity)
    for first, second in (("softmax", "softmax-reciprocal"), ("softmax-reciprocal", "softmax")):
        model = model_with("softmax-row")
        nets = {"softmax": row, "softmax-reciprocal": one}
        if first == "softmax":
            apply_arm(model, first, "learned-frozen", nets[first])
            before = model(model.example_inputs())
            with pytest.raises(InputError, match="softmax-row gives whole rows: slot 'softmax-reciprocal' has no use"):
                apply_arm(model, second, "learned-frozen", nets[second])
            assert torch.equal(model(model.example_inputs()), before)
        else:
            with pytest.raises(InputError, match="softmax-row gives whole rows"):
                apply_arm(model, first, "learned-frozen", nets[first])


def test_the_rows_of_a_model_are_softmax_to_the_net_s_precision():
    """Also at lengths that the net was not fitted on; and a query sees no key after its own position."""
    fitted = fit("softmax-row", "deep-set", size={"summed": 2, "hidden": 8}, steps=200, budget=60)
    assert fitted.fidelity.regions[0].max_error < 0.2
    model, reference = model_with("softmax-row", context=64), model_with("softmax-exp", context=64)
    tokens = model.example_inputs()
    torch.testing.assert_close(model(tokens), reference(tokens), rtol=0, atol=1e-5)
    record = apply_arm(model, "softmax", "learned-frozen", fitted)
    assert 0 < record.output_difference_max < 1
    changed = tokens.clone()
    changed[:, 40:] = 0
    assert torch.equal(model(changed)[:, :40], model(tokens)[:, :40])


def test_the_exact_gradient_is_the_closed_forms_and_the_value_the_nets(fitted):
    model = model_with("gelu")
    apply_arm(model, "activation", "frozen-exact-gradient", fitted["gelu"])
    slot = model.blocks[0].feed_forward.activation
    inputs = torch.linspace(-3, 3, 61, requires_grad=True)
    values = slot(inputs)
    torch.testing.assert_close(values, fitted["gelu"](inputs.detach()), rtol=0, atol=1e-5)
    [gradient] = torch.autograd.grad(values.sum(), inputs)
    torch.testing.assert_close(gradient, get_function("gelu").derivative(inputs.detach()))


def test_a_frozen_relu_net_is_in_its_slot_as_a_polyline(fitted):
    model = model_with("gelu")
    record = apply_arm(model, "activation", "learned-frozen", fitted["gelu"])
    content = model.blocks[0].feed_forward.activation.content
    assert isinstance(content, FoldedPolyline)
    inputs = torch.linspace(-9, 9, 1001)
    torch.testing.assert_close(content(inputs), fitted["gelu"](inputs), rtol=0, atol=1e-5)
    assert len(record.frozen) == 2 * 4
    content.load_state_dict({name: 2 * value for name, value in content.state_dict().items()})
    again = copy.deepcopy(fitted["gelu"].net)
    again.load_state_dict({name: 2 * value for name, value in again.state_dict().items()})
    inside = inputs[inputs.abs() <= 4]
    torch.testing.assert_close(content(inside), again(inside).squeeze(-1), rtol=0, atol=1e-4)
