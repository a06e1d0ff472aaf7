"""Tests against the defects that Transformers written from scratch are known for, in every architecture.

B batch, L length, Ls source length, H heads.
"""

import pytest
import torch
from torch.nn import functional as F

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import get_function, list_functions
from trans4init.ablations.functions.position_rotary import rotate
from trans4init.ablations.transformer import Transformer, TransformerConfig, beam_search, greedy
from trans4init.ablations.transformer.normalization import Normalization
from trans4init.kernels.attention import RelativeBias

SIZES = {"layers": 2, "width": 16, "heads": 4, "vocabulary": 11, "context": 12}
KINDS = {
    "decoder": {"kind": "decoder"},
    "encoder-decoder": {"kind": "encoder-decoder", "encoder_layers": 1, "source_vocabulary": 13},
    "encoder": {"kind": "encoder"},
    "image": {"kind": "image", "image_size": 6, "patch": 2, "classes": 3},
}
TOKEN_KINDS = ("decoder", "encoder-decoder", "encoder")
VARIANTS = {
    "pre-norm": {},
    "post-norm": {"norm_placement": "post", "bias": True},
    "no norms": {"norm_placement": "none"},
    "grouped, gated": {"key_value_heads": 2, "gated": True, "activation": "silu", "normalization": "rmsnorm-rsqrt"},
    "relative": {"position": "t5"},
    "rotary": {"position": "rope"},
    "not fused": {"softmax": "stablemax", "scale": "scalable-softmax", "position": "alibi"},
}


def model_of(kind, seed=0, **changes):
    return Transformer(TransformerConfig(**SIZES | KINDS[kind] | changes), seed=seed).eval()


def tokens_of(*shape, below=11, seed=0):
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


def options_of(kind, batch, length=7):
    """Return what a model of the kind takes besides tokens."""
    return {"source": tokens_of(batch, length, below=13, seed=9)} if kind == "encoder-decoder" else {}


def inputs_of(kind, batch=2, length=9):
    """Return images or tokens."""
    if kind == "image":
        return torch.randn(batch, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    return tokens_of(batch, length)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", TOKEN_KINDS)
def test_the_gradient_of_an_output_by_a_later_input_is_exactly_zero(kind, variant):
    """An encoder, which sees everything, is made causal by an explicit mask."""
    model = model_of(kind, **VARIANTS[variant])
    options = options_of(kind, 1)
    if kind == "encoder":
        options["mask"] = torch.ones(9, 9, dtype=torch.bool).tril()
    tokens = inputs_of(kind, 1)
    embedded = model.embedding(tokens).detach().requires_grad_()
    hook = model.embedding.register_forward_hook(lambda *_: embedded)
    logits = model(tokens, **options)
    hook.remove()
    for row in range(9):
        [gradient] = torch.autograd.grad(logits[0, row].sum(), embedded, retain_graph=True)
        assert torch.count_nonzero(gradient[0, row + 1 :]) == 0
        assert (gradient[0, : row + 1].abs().amax(dim=-1) > 0).all()


@pytest.mark.parametrize("kind", ["encoder", "image"])
def test_an_encoder_is_not_causal_by_mistake(kind):
    model, tokens = model_of(kind, position="sinusoidal"), inputs_of(kind, 1)
    embedded = model.embedding(tokens).detach().requires_grad_()
    model.embedding.register_forward_hook(lambda *_: embedded)
    logits = model(tokens)
    first = logits[0, 0] if kind == "encoder" else logits[0]
    [gradient] = torch.autograd.grad(first.square().sum(), embedded)
    assert (gradient[0].abs().amax(dim=-1) > 0).all()


LENGTHS = torch.tensor([9, 4, 1])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("output", ["tokens", "mean", "first", "none"])
def test_changing_padded_tokens_changes_nothing_in_an_encoder(variant, output):
    heads = {} if output == "tokens" else {"classes": 3, "pooling": output}
    model, tokens = model_of("encoder", **heads, **VARIANTS[variant]), tokens_of(3, 9)
    padding = torch.arange(9) >= LENGTHS[:, None]
    changed = torch.where(padding, (tokens + 1) % 11, tokens)
    before, after = model(tokens, lengths=LENGTHS), model(changed, lengths=LENGTHS)
    if before.dim() == 3:
        before, after = before[~padding], after[~padding]
    assert torch.equal(before, after)
    alone = model(tokens[1:2, :4])
    alone = alone[0] if alone.dim() == 3 else alone
    row = before[9:13] if output in ("tokens", "none") else before[1:2]
    torch.testing.assert_close(row, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_changing_padded_tokens_changes_nothing_in_an_encoder_decoder(variant):
    model, target, source = model_of("encoder-decoder", **VARIANTS[variant]), tokens_of(3, 6), tokens_of(3, 9, below=13)
    padding, unread = torch.arange(9) >= LENGTHS[:, None], torch.tensor([6, 2, 3])
    options = {"source_lengths": LENGTHS, "lengths": unread}
    before = model(target, source=source, **options)
    beyond = torch.arange(6) >= unread[:, None]
    changed = torch.where(beyond, (target + 1) % 11, target)
    after = model(changed, source=torch.where(padding, (source + 1) % 13, source), **options)
    assert torch.equal(before[~beyond], after[~beyond])
    alone = model(target[1:2, :2], source=source[1:2, :4])
    torch.testing.assert_close(before[1:2, :2], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_changing_padded_tokens_changes_nothing_in_a_decoder(variant):
    model, tokens = model_of("decoder", **VARIANTS[variant]), tokens_of(3, 9)
    padding = torch.arange(9) >= LENGTHS[:, None]
    before = model(tokens, lengths=LENGTHS)
    after = model(torch.where(padding, (tokens + 1) % 11, tokens), lengths=LENGTHS)
    assert torch.equal(before[~padding], after[~padding])


# not fire-query, which depends on the query position as well
RELATIVE = [name for name in list_functions() if get_function(name).role == "bias"]


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
@pytest.mark.parametrize("position", RELATIVE)
def test_a_relative_bias_is_the_same_for_the_same_distance_at_every_length(position, kind):
    """Equal to the last bit up to the context of 12; beyond it, where there is no table, up to rounding."""
    model, hooked = model_of(kind, position=position), {}
    attention = model.blocks[0].attention
    attention.register_forward_hook(lambda _, inputs, __: hooked.update(bias=inputs[1].positions.bias))
    values = {}
    for length in (2, 5, 12, 30):
        model(tokens_of(1, length))
        assert isinstance(hooked["bias"], RelativeBias)
        dense = hooked["bias"].dense(length, length)  # [H, L, L]
        by_distance = {}
        for i in range(length):
            for j in range(i + 1 if kind == "decoder" else length):
                assert torch.equal(by_distance.setdefault(i - j, dense[:, i, j]), dense[:, i, j])
        for distance, value in by_distance.items():
            error = (values.setdefault(distance, value) - value).abs().max()
            assert error <= (0 if length <= 12 else 1e-6 * value.abs().max())
    assert len({tuple(value.tolist()) for value in values.values()}) > 4


@pytest.mark.parametrize("position", [name for name in list_functions() if get_function(name).role == "rotary"])
def test_a_rotated_score_is_the_same_for_the_same_distance_at_every_place(position):
    model = model_of("decoder", position=position, width=64)
    pairs = model.blocks[0].attention.pairs
    values = model.position(torch.arange(40), highest=39)
    q, k = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(0)).expand(2, 1, 1, 40, 16).double()
    q, k = rotate(q, values, pairs=pairs, key=False)[0, 0], rotate(k, values, pairs=pairs, key=True)[0, 0]
    scores = q @ k.T
    for distance in range(-39, 40):
        same = scores.diagonal(-distance)
        torch.testing.assert_close(same, same[:1].expand_as(same), rtol=1e-4, atol=1e-4)
    assert scores[0].std() > 1e-2


def permuted(rows, order, dim, size):
    """Reorder the heads, of `size` entries each, along dimension `dim` of a weight."""
    return rows.unflatten(dim, (-1, size)).index_select(dim, order).flatten(dim, dim + 1)


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_heads_with_their_output_weights_changes_nothing(kind):
    """Permutes in every attention layer: self-attention of each stack, and cross-attention."""
    model, inputs, options = model_of(kind, position="sinusoidal", bias=True), inputs_of(kind), options_of(kind, 2)
    before, order = model(inputs, **options), torch.tensor([2, 0, 3, 1])
    layers = [m for m in model.modules() if type(m).__name__ == "Attention"]
    assert len(layers) == (2 + 2 + 1 if kind == "encoder-decoder" else 2)
    with torch.no_grad():
        for layer in layers:
            three = torch.cat([order, order + 4, order + 8])
            if hasattr(layer, "queries"):
                layer.queries.weight.copy_(permuted(layer.queries.weight, order, 0, 4))
                layer.keys_values.weight.copy_(permuted(layer.keys_values.weight, three[:8], 0, 4))
            else:
                layer.queries_keys_values.weight.copy_(permuted(layer.queries_keys_values.weight, three, 0, 4))
    assert (model(inputs, **options) - before).abs().max() > 1e-3
    with torch.no_grad():
        for layer in layers:
            layer.out.weight.copy_(permuted(layer.out.weight, order, 1, 4))
    torch.testing.assert_close(model(inputs, **options), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_norm_has_parameters_of_its_own(kind, placement):
    model = model_of(kind, norm_placement=placement)
    norms = [module for module in model.modules() if isinstance(module, Normalization)]
    blocks = {"encoder-decoder": 2 * 3 + 1 * 2}.get(kind, 2 * 2)
    stacks = 2 if kind == "encoder-decoder" else 1
    assert len(norms) == blocks + (stacks if placement == "pre" else 0)
    assert len({norm.weight.data_ptr() for norm in norms}) == len(norms)
    names = dict(model.named_parameters())
    assert sum(name.endswith(("norm.weight", "norm.bias")) for name in names) == 2 * len(norms)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(inputs_of(kind), **options_of(kind, 2)).square().mean().backward()
    optimiser.step()
    assert len({tuple(norm.weight.tolist()) for norm in norms}) == len(norms)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", TOKEN_KINDS)
def test_the_output_layer_is_a_parameter_and_trains(kind, tied):
    model = model_of(kind, tied_output=tied)
    weight = dict(model.named_parameters())["embedding.weight" if tied else "output.weight"]
    assert ("output.weight" in dict(model.named_parameters())) is not tied
    before = weight.detach().clone()
    tokens = tokens_of(2, 9, below=10)  # the last token of the vocabulary is in no input: its row moves by the output
    logits = model(tokens, **options_of(kind, 2))
    hidden = []
    hook = model.norm.register_forward_hook(lambda _, __, output: hidden.append(output))
    torch.testing.assert_close(model(tokens, **options_of(kind, 2)), hidden.append(0) or logits)
    hook.remove()
    torch.testing.assert_close(hidden[0] @ before.T, logits)
    F.cross_entropy(logits.flatten(0, 1), torch.full((18,), 10)).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert (weight.detach() - before)[10].abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["encoder", "image"])
def test_the_classifier_is_a_parameter_and_trains(kind):
    model = model_of(kind, classes=3)
    before = model.output.linear.weight.detach().clone()
    F.cross_entropy(model(inputs_of(kind)), torch.tensor([0, 2])).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert ((model.output.linear.weight.detach() - before).abs().amax(dim=1) > 1e-5).all()


def test_evaluation_encodes_the_source_and_not_the_target():
    """While a model decodes, the encoder is given the source, once, and nothing that was decoded."""
    model, source = model_of("encoder-decoder"), tokens_of(3, 7, below=13)
    prompts, read = tokens_of(3, 2, seed=5), []
    model.encoder.embedding.register_forward_hook(lambda _, inputs, __: read.append(inputs[0]))
    for decode in (greedy, beam_search):
        read.clear()
        decoded = decode(model, prompts, maximum=6, end=10, source=source)
        assert len(read) == 1
        assert torch.equal(read[0], source)
        rows = decoded.tokens[:, :1]
        expected = model(prompts, memory=model.encode(source))[:, -1].argmax(-1, keepdim=True)
        if decode is greedy:
            assert torch.equal(rows, expected)
    logits = model(prompts, source=source)
    assert (model(prompts, source=source.roll(1, 1)) - logits).abs().amax(dim=(1, 2)).min() > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
def test_attention_maps_are_those_of_the_true_activations(kind, variant):
    """Each head's map times the head's values is the input of the layer's output matrix."""
    model = model_of(kind, **{"position": "sinusoidal"} | VARIANTS[variant])
    inputs, options = inputs_of(kind), options_of(kind, 2)
    if kind == "encoder-decoder":
        options["source_lengths"] = torch.tensor([7, 3])
    values, mixed, handles = {}, {}, []
    for path, layer in model.named_modules():
        if type(layer).__name__ != "Attention":
            continue
        into = layer.keys_values if hasattr(layer, "queries") else layer.queries_keys_values

        def keep_values(_, __, output, path=path, shared=layer.key_value_heads * 4):
            by_head = output[..., -shared:].unflatten(-1, (-1, 4)).transpose(1, 2)  # [B, Hkv, L, D]
            values[path] = by_head.repeat_interleave(4 // by_head.shape[1], dim=1)

        handles.append(into.register_forward_hook(keep_values))
        handles.append(layer.out.register_forward_hook(lambda _, args, __, path=path: mixed.update({path: args[0]})))
    plain = model(inputs, **options)
    used = dict(mixed)
    maps = model.attention_maps(inputs, **options)
    assert set(maps) == set(used)
    assert len(maps) == (5 if kind == "encoder-decoder" else 2)
    for path, weights in maps.items():
        assert weights.shape[1] == 4
        torch.testing.assert_close((weights @ values[path]).transpose(1, 2).flatten(2), used[path], rtol=0, atol=1e-5)
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    flat = [maps[path][:, head].flatten() for path in maps for head in range(4) if "cross" not in path]
    different = [weights for weights in flat if weights.shape == flat[0].shape]
    assert all((a - b).abs().max() > 1e-4 for i, a in enumerate(different) for b in different[:i])
    if kind == "encoder-decoder":
        assert maps["blocks.0.cross_attention"][1, :, :, 3:].count_nonzero() == 0
    for handle in handles:
        handle.remove()
    assert torch.equal(model(inputs, **options), plain)  # nothing is left behind


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"heads": 3}, "width 16 can't be shared by 3 heads evenly"),
        ({"key_value_heads": 3}, "4 heads can't share 3 key_value_heads evenly"),
        ({"kind": "image", "image_size": 7, "patch": 2, "classes": 3}, "image_size 7 can't be cut into patches of 2"),
        ({"width": 15, "heads": 3}, "sinusoidal needs an even width .*; 15 is odd"),
        ({"width": 12, "position": "rope"}, "rope turns pairs: the head dimension must be even, not 3"),
        ({"width": 10, "heads": 2, "position": "sinusoidal-2d"}, "multiple of 4, and 10 was given"),
    ],
)
def test_odd_and_indivisible_widths_are_refused_by_name(change, sentence):
    with pytest.raises((ValueError, InputError), match=sentence):
        Transformer(TransformerConfig(**SIZES | change))


@pytest.mark.parametrize("variant", ["pre-norm", "post-norm", "grouped, gated"])
def test_an_encoder_without_positions_is_permutation_equivariant(variant):
    model, tokens = model_of("encoder", position="none", **VARIANTS[variant]), tokens_of(2, 9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(tokens[:, order]), model(tokens)[:, order], rtol=0, atol=1e-5)
    with_positions = model_of("encoder", **VARIANTS[variant])
    assert (with_positions(tokens[:, order]) - with_positions(tokens)[:, order]).abs().max() > 0.1


def reversed_exactly(position):
    """Train an encoder to reverse sequences; return the share of new ones that it gets right, and its loss."""
    sizes = {"layers": 2, "width": 32, "heads": 4, "vocabulary": 8, "context": 6}
    model = Transformer(TransformerConfig(kind="encoder", position=position, **sizes))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(250):
        tokens = torch.randint(8, (64, 6), generator=generator)
        loss = F.cross_entropy(model(tokens).flatten(0, 1), tokens.flip(1).flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    tokens = torch.randint(8, (500, 6), generator=generator)
    right = (model.eval()(tokens).argmax(-1) == tokens.flip(1)).all(dim=1)
    return right.float().mean().item(), loss.item()


def test_an_encoder_without_positions_can_not_solve_reverse_and_with_them_it_can():
    blind, high = reversed_exactly("none")
    assert blind < 0.02
    assert high > 1.0
    sighted, low = reversed_exactly("sinusoidal")
    assert sighted > 0.98
    assert low < 0.1
