"""The ends of what a model can be given: epsilons, blank inputs, far positions, nothing at all, other integers."""

import copy

import pytest
import torch

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.errors import InputError
from trans4init.ablations.fit import fit
from trans4init.ablations.functions import get_function
from trans4init.ablations.functions.position_rotary import rotate
from trans4init.ablations.slots.contents import Content
from trans4init.ablations.transformer import Transformer, TransformerConfig
from trans4init.ablations.transformer.normalization import Normalization


class Unfused(Content):
    """Is the closed form, called as a net would be."""

    def value(self, inputs):
        return self.function.analytic(inputs, **self.shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("deviation", [0.0, 1e-6, 1e-5, 3e-3, 1e-2, 1.0])
@pytest.mark.parametrize("epsilon", [1e-12, 1e-6, 1e-5, 1e-3])
def test_a_norm_by_its_slot_has_its_own_epsilon(epsilon, deviation, dtype):
    """BERT has 1e-12, ViT 1e-6, and the function 1e-5."""
    norm = Normalization(TransformerConfig(layers=1, width=64, heads=4, normalization_epsilon=epsilon))
    norm.slot.content = Unfused(norm.slot.function, norm.slot.shape)
    state = (deviation * torch.randn(1, 64, generator=torch.Generator().manual_seed(0))).to(dtype)
    exact = state.double()
    right = (exact - exact.mean()) / (exact.var(correction=0) + epsilon).sqrt()
    found = norm.to(dtype)(state)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), right, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)


@pytest.mark.parametrize("net", ["piecewise-linear", "mlp-gelu", "spline", "rational"])
def test_blank_patches_pull_as_they_do_on_the_closed_form(net):
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images[:, :, :4] = 0
    config = TransformerConfig(
        kind="image", layers=2, width=32, heads=4, image_size=8, patch=2, classes=3, position="rope"
    )
    norms = []
    for replaced in (False, True):
        model = Transformer(config)
        if replaced:
            apply_arm(model, "normalization", "learned-frozen", fit("layernorm-rsqrt", net, seed=0), inputs=images)
        torch.nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 2, 0])).backward()
        pulls = [value.grad.norm() for value in model.parameters() if value.grad is not None]
        norms.append(torch.stack(pulls).norm().item())
    assert norms[1] == pytest.approx(norms[0], rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("position", [2047, 8191, 35000])
def test_xpos_scores_depend_on_distance_alone(dtype, position):
    state = torch.ones(1, 1, 2, 64, dtype=dtype)
    values = get_function("xpos").analytic(torch.tensor([position - 1.0, position]), head_dim=64)
    q, k = (rotate(state, values, pairs=32, key=key) for key in (False, True))
    assert (q @ k.transpose(-1, -2))[0, 0, 1, 0].item() == pytest.approx(61.774, abs=1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_with_xpos_is_right_far_out_under_autocast(dtype):
    config = TransformerConfig(
        layers=1, width=64, heads=1, vocabulary=20, context=16, position="xpos", randomised_positions=30000
    )
    exact, cast = Transformer(config).train(), Transformer(config).train()  # both draw the same positions
    tokens = torch.randint(20, (2, 16), generator=torch.Generator().manual_seed(0))
    right = exact(tokens)
    with torch.autocast("cpu", dtype=dtype):
        logits = cast(tokens)
    torch.testing.assert_close(logits.float(), right, rtol=0, atol=2e-2 * right.abs().max().item())


def test_xpos_says_where_it_ends():
    with pytest.raises(InputError, match="xpos is defined up to position 35694, and 43000 was asked for"):
        get_function("xpos").analytic(torch.tensor([43000.0]), head_dim=64)


@pytest.mark.parametrize("position", ["xpos", "rope"])
def test_a_rounded_model_decodes_as_it_reads(position):
    model = Transformer(
        TransformerConfig(layers=2, width=32, heads=4, vocabulary=20, context=64, position=position)
    ).eval()
    tokens = torch.randint(20, (2, 40), generator=torch.Generator().manual_seed(0))
    half = copy.deepcopy(model).half()
    with torch.no_grad():
        cache = half.new_cache(2)
        steps = [half(tokens[:, :7], cache=cache)]
        steps += [half(tokens[:, place : place + 1], cache=cache) for place in range(7, 40)]
        exact = model(tokens)
    logits = torch.cat(steps, dim=1)
    assert logits.dtype == torch.float16
    torch.testing.assert_close(logits.float(), exact, rtol=0, atol=5e-3 * exact.abs().max().item())


KINDS = [
    ("decoder", {}),
    ("encoder", {}),
    ("encoder", {"classes": 3}),
    ("encoder-decoder", {}),
]


@pytest.mark.parametrize("position", ["sinusoidal", "t5", "rope", "fire-query"])
@pytest.mark.parametrize(("kind", "changes"), KINDS)
def test_a_batch_of_nothing_has_logits_of_nothing(kind, changes, position):
    model = Transformer(
        TransformerConfig(kind=kind, layers=1, width=32, heads=4, vocabulary=20, position=position, **changes)
    ).eval()
    for shape in ((0, 5), (2, 0)):
        tokens = torch.zeros(shape, dtype=torch.long)
        logits = model(tokens, source=tokens) if kind == "encoder-decoder" else model(tokens)
        assert logits.shape == ((shape[0], 3) if changes else (*shape, 20))
        assert logits.isfinite().all()


def test_the_last_of_no_tokens_is_refused():
    model = Transformer(TransformerConfig(layers=1, width=32, heads=4, vocabulary=20)).eval()
    with pytest.raises(InputError, match="lengths must be from 1 to 5, and 0 was given"):
        model(torch.zeros(2, 5, dtype=torch.long), lengths=torch.tensor([0, 3]), last_only=True)
    with pytest.raises(InputError, match="the sequences have none"):
        model(torch.zeros(2, 0, dtype=torch.long), last_only=True)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_tokens_are_integers_of_any_kind(dtype):
    model = Transformer(TransformerConfig(layers=1, width=32, heads=4, vocabulary=20)).eval()
    tokens = torch.arange(4)[None]
    assert torch.equal(model(tokens.to(dtype)), model(tokens))
    with pytest.raises(InputError, match=r"tokens are \[batch, length\] integers"):
        model(tokens.bool())


@pytest.mark.parametrize("position", ["fire-query", "fire", "t5", "xpos", "alibi", "sinusoidal", "learned-table"])
def test_a_model_is_one_graph(position):
    torch._dynamo.reset()
    model = Transformer(TransformerConfig(layers=1, width=32, heads=4, vocabulary=20, position=position)).eval()
    tokens = torch.arange(4)[None]
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(tokens), model(tokens))
