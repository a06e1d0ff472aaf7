"""Tests that every kind of Transformer computes what its paper says, and takes masks, shortcuts and arms."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.t5.modeling_t5 import T5Attention

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.fit import fit
from trans4init.ablations.functions import Domain
from trans4init.ablations.nets import build_net
from trans4init.ablations.slots.guard import FrozenGuard
from trans4init.ablations.slots.slot import Slot, observed_ranges, slots_named
from trans4init.ablations.transformer import Transformer, TransformerConfig
from trans4init.ablations.transformer import attention as attention_layer
from trans4init.kernels.attention import attention

SIZES = {"layers": 2, "width": 16, "heads": 4, "vocabulary": 11, "context": 12}
KINDS = {
    "decoder": {"kind": "decoder"},
    "encoder-decoder": {"kind": "encoder-decoder", "encoder_layers": 1, "source_vocabulary": 13},
    "encoder": {"kind": "encoder"},
    "image": {"kind": "image", "image_size": 6, "patch": 2, "classes": 3},
}


def model_of(kind, seed=0, **changes):
    return Transformer(TransformerConfig(**SIZES | KINDS[kind] | changes), seed=seed)


def tokens_of(*shape, below=11, seed=0):
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


def called(model):
    """Return the model's output on its own example inputs."""
    example = model.example_inputs()
    return model(**example) if isinstance(example, dict) else model(example)


@pytest.mark.parametrize(
    ("kind", "changes", "shape"),
    [
        ("decoder", {}, (2, 12, 11)),
        ("encoder-decoder", {}, (2, 12, 11)),
        ("encoder", {}, (2, 12, 11)),
        ("encoder", {"classes": 3}, (2, 3)),
        ("encoder", {"classes": 3, "pooling": "first"}, (2, 3)),
        ("encoder", {"classes": 3, "pooling": "none"}, (2, 12, 3)),
        ("image", {}, (2, 3)),
        ("image", {"pooling": "first", "channels": 3}, (2, 3)),
    ],
)
def test_every_kind_gives_its_logits_and_trains_every_parameter(kind, changes, shape):
    model = model_of(kind, **changes)
    logits = called(model)
    assert logits.shape == shape
    logits.square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert all(p.grad.abs().max() > 0 for name, p in model.named_parameters())


def copied(layer, block, *, cross):
    """Copy a block's weights into PyTorch's layer, whose feed-forward and norms have other names."""
    pairs = [(layer.self_attn, block.attention)] + ([(layer.multihead_attn, block.cross_attention)] if cross else [])
    for torch_attention, module in pairs:
        names = ["queries", "keys_values"] if module.cross else ["queries_keys_values"]
        parts = [getattr(module, name) for name in names]
        torch_attention.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        torch_attention.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
        torch_attention.out_proj.load_state_dict(module.out.state_dict())
    layer.linear1.load_state_dict(block.feed_forward.up.state_dict())
    layer.linear2.load_state_dict(block.feed_forward.out.state_dict())
    norms = [block.attention_norm, *([block.cross_attention_norm] if cross else []), block.feed_forward_norm]
    for number, norm in enumerate(norms, 1):
        getattr(layer, f"norm{number}").load_state_dict({"weight": norm.weight, "bias": norm.bias})


def moved(model):
    """Move every parameter, also biases and norms, away from its initial value; return the model in evaluation."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize("placement", ["pre", "post"])
@torch.no_grad()
def test_an_encoder_decoder_computes_what_pytorchs_own_layers_do(placement):
    """Compares with nn.TransformerEncoderLayer and nn.TransformerDecoderLayer, with padded sources."""
    model = moved(model_of("encoder-decoder", bias=True, activation="relu", norm_placement=placement, layers=2))
    source, target, lengths = tokens_of(3, 9, below=13), tokens_of(3, 6), torch.tensor([9, 4, 1])
    padding, ahead = torch.arange(9) >= lengths[:, None], torch.ones(6, 6, dtype=torch.bool).triu(1)
    sizes = {"dropout": 0.0, "batch_first": True, "norm_first": placement == "pre"}
    memory = 4 * model.encoder.embedding(source) + model.encoder.position(torch.arange(9))
    for block in model.encoder.blocks:
        layer = nn.TransformerEncoderLayer(16, 4, 64, **sizes)
        copied(layer, block, cross=False)
        memory = layer(memory, src_key_padding_mask=padding)
    memory = model.encoder.norm(memory)
    state = 4 * model.embedding(target) + model.position(torch.arange(6))
    for block in model.blocks:
        layer = nn.TransformerDecoderLayer(16, 4, 64, **sizes)
        copied(layer, block, cross=True)
        state = layer(state, memory, tgt_mask=ahead, memory_key_padding_mask=padding)
    expected = F.linear(model.norm(state), model.embedding.weight)
    torch.testing.assert_close(model(target, source=source, source_lengths=lengths), expected, rtol=1e-4, atol=1e-4)
    real = ~padding
    torch.testing.assert_close(model.encode(source, lengths)[real], memory[real], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_grouped_heads_are_heads_whose_keys_and_values_are_repeated():
    grouped, full = moved(model_of("decoder", key_value_heads=2)), model_of("decoder").eval()
    weights = dict(grouped.named_parameters())
    for name, parameter in full.named_parameters():
        if name.endswith("queries_keys_values.weight"):
            q, k, v = weights[name].split([16, 8, 8])
            k, v = (part.unflatten(0, (2, 4)).repeat_interleave(2, dim=0).flatten(0, 1) for part in (k, v))
            parameter.copy_(torch.cat([q, k, v]))
        else:
            parameter.copy_(weights[name])
    torch.testing.assert_close(called(grouped), called(full), rtol=0, atol=1e-4)
    assert sum(p.numel() for p in full.parameters()) - sum(p.numel() for p in grouped.parameters()) == 2 * 16 * 16


@torch.no_grad()
def test_a_gated_feed_forward_is_swiglu():
    layer = model_of("decoder", gated=True, activation="silu", feed_forward=24).blocks[0].feed_forward
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    expected = F.linear(F.silu(x @ layer.gate.weight.T) * (x @ layer.up.weight.T), layer.out.weight)
    torch.testing.assert_close(layer(x), expected)


@torch.no_grad()
def test_patches_are_read_row_by_row_and_each_is_a_square():
    model = model_of("image", channels=2, pooling="first")
    images = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    state = model.embedding(images)
    assert torch.equal(state[0, 0], model.embedding.class_token[0])
    for row in range(3):
        for column in range(3):
            patch = images[0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            expected = model.embedding.projection(patch.flatten())
            torch.testing.assert_close(state[0, 1 + 3 * row + column], expected)


@pytest.mark.parametrize("name", ["dropout", "attention_dropout", "embedding_dropout"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("softmax", ["softmax-exp", "stablemax"])
def test_each_dropout_is_for_training_alone(kind, name, softmax):
    model, plain = (model_of(kind, softmax=softmax, **change) for change in ({name: 0.5}, {}))
    expected = called(plain)
    assert torch.equal(called(model.eval()), expected)
    torch.manual_seed(0)
    first = called(model.train())
    assert not torch.allclose(first, called(model), atol=1e-3)
    assert not torch.allclose(first, expected, atol=1e-3)
    assert torch.equal(called(plain.train()), expected)


@pytest.mark.parametrize(("dropout", "classifier_dropout"), [(0.0, 0.5), (0.5, 0.0)])
def test_classifier_dropout_is_the_one_before_logits_of_classes(dropout, classifier_dropout):
    model = model_of("encoder", classes=3, dropout=dropout, classifier_dropout=classifier_dropout)
    state, lengths = torch.ones(2, 5, 16), torch.tensor([5, 2])
    expected = model.output.eval()(state, lengths)
    torch.manual_seed(0)
    assert torch.equal(model.output.train()(state, lengths), expected) == (classifier_dropout == 0)
    torch.manual_seed(0)
    assert not torch.equal(called(model.train()), called(model.eval()))


MASKED = [
    lambda seen: seen,
    lambda seen: seen.expand(3, 9, 9),
    lambda seen: seen.expand(3, 1, 9, 9),
    lambda seen: seen.expand(1, 4, 9, 9),
    lambda seen: torch.zeros(9, 9).masked_fill(~seen, -math.inf),
    lambda seen: torch.zeros(3, 4, 9, 9).masked_fill(~seen, -math.inf),
]


@pytest.mark.parametrize("softmax", ["softmax-exp", "2relu"])
@pytest.mark.parametrize("position", ["sinusoidal", "t5", "fire-query"])
@torch.no_grad()
def test_a_mask_of_every_shape_hides_what_it_says(position, softmax):
    """An encoder with a causal mask computes what a decoder does; in a decoder that mask changes nothing."""
    decoder = moved(model_of("decoder", position=position, softmax=softmax, tied_output=False))
    encoder = model_of("encoder", position=position, softmax=softmax, tied_output=False).eval()
    weights = decoder.state_dict()
    if position == "t5":  # 32 buckets behind, or 16 on each side: alike up to distance 7
        weights["position.content.table"] = weights["position.content.table"].clone()
        decoder.position.content.table[8:] = decoder.position.content.table[8]
        rows = decoder.position.content.table
        weights["position.content.table"] = torch.cat([rows[:16], rows[:16]])
    encoder.load_state_dict(weights)
    tokens, seen = tokens_of(3, 9), torch.ones(9, 9, dtype=torch.bool).tril()
    expected = decoder(tokens)
    assert (encoder(tokens) - expected).abs().max() > 0.1
    for shaped in MASKED:
        torch.testing.assert_close(encoder(tokens, mask=shaped(seen)), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(decoder(tokens, mask=shaped(seen)), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_masks_lengths_and_added_floats_go_together():
    """A mask of each entry's real keys does what lengths do; floats are added to the scores of seen keys."""
    model, tokens, lengths = moved(model_of("encoder", position="t5")), tokens_of(3, 9), torch.tensor([9, 4, 1])
    real = torch.arange(9) < lengths[:, None]
    by_mask = model(tokens, mask=real[:, None].expand(3, 9, 9))
    torch.testing.assert_close(by_mask[real], model(tokens, lengths=lengths)[real], rtol=1e-4, atol=1e-4)
    floats = torch.randn(4, 9, 9, generator=torch.Generator().manual_seed(0))[None]
    added, maps = (
        model(tokens, mask=floats, lengths=lengths),
        model.attention_maps(tokens, mask=floats, lengths=lengths),
    )
    assert (added[real] - model(tokens, lengths=lengths)[real]).abs().max() > 0.1
    plain = model.attention_maps(tokens, lengths=lengths)["blocks.0.attention"][0].log()
    expected = (plain + floats[0]).log_softmax(-1).exp()
    torch.testing.assert_close(maps["blocks.0.attention"][0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("impl", ["auto", "reference"])
@pytest.mark.parametrize("softmax", ["softmax-exp", "stablemax"])
@pytest.mark.parametrize("kind", ["encoder", "encoder-decoder"])
def test_a_query_that_sees_nothing_gets_nothing_and_a_finite_gradient(kind, softmax, impl, monkeypatch):
    """Holds for each implementation of attention."""
    monkeypatch.setattr(attention_layer, "attention", partial(attention, impl=impl))
    model = model_of(kind, softmax=softmax, bias=True)
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    mask[2] = False
    if kind == "encoder":
        logits = model(tokens_of(2, 5), mask=mask, lengths=torch.tensor([5, 0]))
    else:
        logits = model(
            tokens_of(2, 5), mask=mask, source=tokens_of(2, 7, below=13), source_lengths=torch.tensor([7, 0])
        )
    assert logits.isfinite().all()
    logits.square().mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    weights = []
    model.blocks[0].attention.watch_map = weights.append
    model(tokens_of(2, 5), mask=mask, **({"source": tokens_of(2, 7)} if kind == "encoder-decoder" else {}))
    assert weights[0][:, :, 2].count_nonzero() == 0


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
@pytest.mark.parametrize("position", ["sinusoidal", "rope", "t5", "fire-query"])
def test_the_last_row_alone_is_the_last_row_of_all(kind, position):
    """Gradients are the same too; where lengths differ, it is each entry's own last token."""
    model = model_of(kind, position=position)
    tokens, options = tokens_of(3, 9), {"source": tokens_of(3, 5, below=13)} if kind == "encoder-decoder" else {}
    lengths = torch.tensor([9, 4, 1])
    whole, last = model(tokens, **options), model(tokens, last_only=True, **options)
    torch.testing.assert_close(last, whole[:, -1:], rtol=0, atol=1e-5)
    rows = model(tokens, last_only=True, lengths=lengths, **options)
    torch.testing.assert_close(rows[:, 0], whole[torch.arange(3), lengths - 1], rtol=0, atol=1e-5)
    names, parameters = zip(*model.named_parameters(), strict=True)
    target = torch.tensor([1, 2, 3])
    of_whole = torch.autograd.grad(F.cross_entropy(whole[:, -1], target), parameters)
    of_last = torch.autograd.grad(F.cross_entropy(last[:, 0], target), parameters)
    for name, gradient, expected in zip(names, of_last, of_whole, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("position", ["sinusoidal", "rope", "t5", "learned-table"])
def test_projecting_once_per_token_changes_neither_logits_nor_gradients(position, layers, last_only):
    model = model_of("decoder", position=position, layers=layers, key_value_heads=2, bias=True)
    tokens, target = tokens_of(60, 5), tokens_of(60, seed=1)
    names, parameters = zip(*model.named_parameters(), strict=True)
    plain, once = (model(tokens, once_per_token=once, last_only=last_only) for once in (False, True))
    torch.testing.assert_close(once, plain, rtol=0, atol=1e-5)
    grads = [torch.autograd.grad(F.cross_entropy(logits[:, -1], target), parameters) for logits in (plain, once)]
    for name, expected, gradient in zip(names, *grads, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("position", ["sinusoidal", "rope"])
def test_watching_sees_the_tokens_of_the_batch_and_not_the_whole_vocabulary(position):
    model = model_of("decoder", position=position, layers=2)
    with torch.no_grad():
        model.embedding.weight[7:] *= 100  # of tokens that are not in the input
    tokens = tokens_of(60, 5) % 7
    ranges = []
    for once in (False, True):
        with observed_ranges(model) as observed, torch.no_grad():
            logits = model(tokens, once_per_token=once)
        ranges.append(observed)
    with torch.no_grad():
        torch.testing.assert_close(logits, model(tokens), rtol=0, atol=1e-5)
    plain, once = ranges
    assert once.keys() == plain.keys()
    for path, expected in plain.items():
        assert once[path] == pytest.approx(expected, rel=1e-4, abs=1e-4), path


def test_a_symmetric_bias_can_not_tell_before_from_after_and_a_signed_one_can():
    tokens = tokens_of(2, 9)
    for position, blind in (("alibi", True), ("kerple-log", True), ("t5", False), ("learned-distance", False)):
        model = model_of("encoder", position=position).eval()
        with torch.no_grad():
            for slot in slots_named(model, "position").values():
                for parameter in slot.parameters():
                    parameter.normal_(generator=torch.Generator().manual_seed(1))
            difference = (model(tokens.flip(1)).flip(1) - model(tokens)).abs().max()
        assert bool(difference < 1e-5) is blind


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_t5_has_the_buckets_of_transformers(kind):
    slot, keys_minus_query = model_of(kind, position="t5").position, torch.arange(-400, 400 if kind == "encoder" else 1)
    bucket = T5Attention._relative_position_bucket
    expected = bucket(keys_minus_query, bidirectional=kind == "encoder", num_buckets=32, max_distance=128)
    assert torch.equal(slot.function.table_index(-keys_minus_query, slot.domain, heads=4), expected)


SLOTS = ("position", "activation", "softmax", "softmax-reciprocal", "normalization", "scale", "head-mixing")


@pytest.mark.parametrize("kind", KINDS)
def test_every_slot_of_every_architecture_takes_an_arm(kind):
    """Puts corrected and frozen nets into each slot, in every layer and stack at once; frozen nets don't move."""
    nets = {
        "position": build_net("siren", Domain(0, 15, integer=True), 16, hidden=(4,)),
        "activation": fit("gelu", "mlp-relu", size={"hidden": (8,)}),
        "softmax": build_net("mlp-gelu", Domain(-8, 0, integer=False), 1, hidden=(4,)),
        "softmax-reciprocal": build_net("mlp-gelu", Domain(1, 64, integer=False, log=True), 1, hidden=(4,)),
        "normalization": build_net("mlp-gelu", Domain(1e-2, 1e2, integer=False, log=True), 1, hidden=(4,)),
        "scale": build_net("mlp-gelu", Domain(1, 16, integer=True), 1, hidden=(4,)),
        "head-mixing": build_net("linear", Domain(-4, 4, integer=False), 4),
    }
    layers = {"encoder-decoder": 5}.get(kind, 2)
    stacks = 2 if kind == "encoder-decoder" else 1
    feeds = 3 if kind == "encoder-decoder" else 2
    norms = {"encoder-decoder": 2 * 3 + 2 + 2}.get(kind, 5)
    places = {"position": stacks, "activation": feeds, "normalization": norms}
    for slot in SLOTS:
        model = model_of(kind)
        assert len(slots_named(model, slot)) == places.get(slot, layers)
        corrected = apply_arm(model, slot, "corrected", nets[slot])
        assert corrected.output_difference_max <= 1e-5
        assert len({name.split(".content.")[0] for name in corrected.moves}) == places.get(slot, layers)
        arm = "learned-frozen" if slot == "activation" else "random-frozen"
        if slot != "softmax-reciprocal" and slot != "head-mixing":
            record = apply_arm(model, slot, arm, nets[slot])
            assert math.isfinite(record.output_difference_max)
            assert record.output_difference_max > 0
            guard = FrozenGuard(model, record)
            called(model).square().mean().backward()
            torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3).step()
            guard.check()


@pytest.mark.parametrize("kind", KINDS)
def test_watching_sees_every_slot_of_every_architecture(kind):
    model = model_of(kind)
    before = called(model)
    with observed_ranges(model) as ranges:
        watched = called(model)
    assert torch.equal(before, watched)
    assert set(ranges) == {path for path, module in model.named_modules() if isinstance(module, Slot)}
    if kind == "encoder":
        assert ranges["blocks.0.attention.scale"] == (12, 12)
    if kind == "encoder-decoder":
        assert ranges["blocks.0.attention.scale"] == (1, 12)


def test_the_scale_of_a_query_is_by_the_keys_that_it_sees():
    model = model_of("encoder", scale="scalable-softmax")
    counts = []
    model.blocks[0].attention.scale.watch = lambda inputs: counts.append(inputs)
    model(tokens_of(3, 9), lengths=torch.tensor([9, 4, 0]))
    assert counts[0].broadcast_to(3, 1, 9)[:, 0].tolist() == [[9] * 9, [4] * 9, [1] * 9]
    mask = torch.ones(9, 9, dtype=torch.bool).tril(1)
    model(tokens_of(3, 9), mask=mask)
    assert counts[1].tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 9]


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_compiles_to_one_graph(kind):
    model = model_of(kind, position="alibi", key_value_heads=2)
    lengths = {} if kind == "image" else {"lengths": torch.tensor([5, 2])}
    inputs = model.example_inputs()["tokens"] if kind == "encoder-decoder" else model.example_inputs()
    options = {"source": tokens_of(2, 7), "source_lengths": torch.tensor([7, 3])} if kind == "encoder-decoder" else {}
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs, **lengths, **options), model(inputs, **lengths, **options))


def test_attention_maps_are_made_in_evaluation_and_leave_the_model_in_training():
    model, tokens = model_of("decoder", dropout=0.5).train(), tokens_of(2, 9)
    first, second = (model.attention_maps(tokens) for _ in range(2))
    assert model.training
    for path, weights in first.items():
        assert torch.equal(weights, second[path])
        assert not weights.requires_grad
