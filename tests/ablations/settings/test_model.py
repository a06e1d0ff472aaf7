"""Tests of model sizes: presets have their papers' sizes, hashes of studies stay, and what doesn't fit is refused."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from trans4init.ablations.errors import InputError
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.spec import spec_hash
from trans4init.ablations.transformer import Transformer, TransformerConfig
from trans4init.reports.records.store import load_results

SIZES = {"layers": 2, "width": 16, "heads": 4, "vocabulary": 11, "context": 12}
KINDS = {
    "decoder": {"kind": "decoder"},
    "encoder-decoder": {"kind": "encoder-decoder", "encoder_layers": 1, "source_vocabulary": 13},
    "encoder": {"kind": "encoder"},
    "image": {"kind": "image", "image_size": 6, "patch": 2, "classes": 3},
}
TOKENS = torch.randint(11, (2, 5), generator=torch.Generator().manual_seed(0))


def model_of(kind, **changes):
    return Transformer(TransformerConfig(**SIZES | KINDS[kind] | changes))


def test_presets_have_the_sizes_that_their_papers_say():
    base = Transformer(TransformerConfig.preset("base"))
    assert base.config.kind == "encoder-decoder"
    assert len(base.blocks) == len(base.encoder.blocks) == 6
    assert sum(p.numel() for p in base.parameters()) == pytest.approx(65e6, rel=0.05)  # table 3
    assert (base.config.dropout, base.config.norm_placement, base.config.activation) == (0.1, "post", "relu")
    tiny = Transformer(TransformerConfig.preset("vit-tiny"))
    assert sum(p.numel() for p in tiny.parameters()) == 5_717_416  # timm's deit_tiny_patch16_224
    small = TransformerConfig.preset("gpt2-small")
    blocks = 12 * (12 * 768**2 + 13 * 768)
    assert blocks + (50257 + 1024 + 2) * 768 == 124_439_808
    shrunk = Transformer(TransformerConfig.preset("gpt2-small", layers=1, vocabulary=100))
    assert sum(p.numel() for p in shrunk.parameters()) == blocks // 12 + (100 + 1024 + 2) * 768
    assert small.bias
    toy = TransformerConfig.preset("toy")
    assert (toy.dropout, toy.attention_dropout, toy.embedding_dropout) == (0, 0, 0)


def test_a_published_study_keeps_the_hash_of_its_conditions():
    """Sizes that a study doesn't set aren't part of its conditions, however many are added later."""
    folder = next((Path(__file__).parents[3] / "reports" / "published").glob("*/first-look/results"))
    record = load_results(folder).records[0]
    spec = load_study("first-look")
    assert spec_hash(spec.conditions(record.spec["fingerprint"])) == record.spec_hash
    assert TransformerConfig(**spec.model.model_dump()).heads == spec.model.heads


def test_a_changed_size_is_a_changed_condition():
    size = TransformerConfig(**SIZES)
    changed = TransformerConfig(**SIZES, gated=True)
    assert size.model_dump() != changed.model_dump()
    assert TransformerConfig(**changed.model_dump()) == changed
    assert str(size) == "decoder 2×16, 4 heads, context 12"
    assert str(changed) == "decoder 2×16, 4 heads, context 12, gated True"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"encoder_layers": 2}, "encoder_layers is for kind encoder-decoder, not for decoder"),
        ({"kind": "encoder", "source_vocabulary": 5}, "source_vocabulary is for kind encoder-decoder, not for encoder"),
        ({"classes": 3}, "classes is for kind encoder or image, not for decoder"),
        ({"kind": "encoder", "pooling": "mean"}, "pooling mean gives one prediction per sequence and needs classes"),
        ({"classifier_dropout": 0.1}, "classifier_dropout is for kind encoder or image, not for decoder"),
        (
            {"kind": "encoder", "classifier_dropout": 0.1},
            "classifier_dropout is for logits of classes and needs classes",
        ),
        ({"kind": "image", "image_size": 8}, "kind image needs patch and classes"),
        (
            {"kind": "image", "image_size": 8, "patch": 2, "classes": 2, "pooling": "none"},
            "pooling must be mean or first, not none",
        ),
        ({"dropout": 1.0}, "less than 1"),
        ({"kind": "encoder-decodr"}, "'decoder', 'encoder-decoder', 'encoder' or 'image'"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused_in_a_sentence(change, sentence):
    with pytest.raises(ValidationError, match=sentence):
        TransformerConfig(**SIZES | change)


@pytest.mark.parametrize(
    ("kind", "call", "sentence"),
    [
        ("encoder-decoder", lambda m: m(TOKENS), "an encoder-decoder needs a source"),
        ("encoder-decoder", lambda m: m(TOKENS, source=TOKENS, memory=m.encode(TOKENS)), "not both"),
        ("encoder-decoder", lambda m: m(TOKENS, source=TOKENS + 9), "token 19 is not in the vocabulary of 13"),
        ("decoder", lambda m: m(TOKENS, source=TOKENS), "kind decoder has no encoder: it takes no source"),
        ("encoder-decoder", lambda m: m(TOKENS, source=TOKENS[:1]), "there are 1 sources for 2 sequences"),
        ("encoder-decoder", lambda m: m.new_cache(3, source=TOKENS), "there are 2 sources for 3 sequences"),
        (
            "encoder-decoder",
            lambda m: m(TOKENS, source=TOKENS, cache=m.new_cache(2, source=TOKENS)),
            "the cache holds the source: give it to new_cache alone",
        ),
        ("decoder", lambda m: m(TOKENS, source_lengths=torch.tensor([1, 2])), "it takes no source"),
        ("decoder", lambda m: m.encode(TOKENS), "kind decoder has no encoder: it takes no source"),
        ("decoder", lambda m: m(TOKENS + 9), "token 19 is not in the vocabulary of 11"),
        ("decoder", lambda m: m(TOKENS - 9), "token -9 is not in the vocabulary of 11"),
        ("decoder", lambda m: m(TOKENS.float()), r"tokens are \[batch, length\] integers, and \[2, 5\] torch.float32"),
        ("decoder", lambda m: m(TOKENS[0]), r"tokens are \[batch, length\] integers, and \[5\] torch.int64"),
        ("decoder", lambda m: m(TOKENS, lengths=torch.tensor([6, 1])), "lengths must be from 0 to 5, and 6 was given"),
        ("encoder", lambda m: m(TOKENS, lengths=torch.tensor([5, -1])), "lengths must be from 0 to 5, and -1"),
        ("encoder", lambda m: m(TOKENS, lengths=torch.tensor([5])), r"lengths must be \[2\] integers, and is \[1\]"),
        (
            "encoder",
            lambda m: m(TOKENS, mask=torch.ones(5, 4).bool()),
            r"a mask is \[5, 5\], .* and \[5, 4\] was given",
        ),
        ("encoder", lambda m: m(TOKENS, mask=torch.ones(5).bool()), r"and \[5\] was given"),
        ("encoder", lambda m: m(TOKENS, mask=torch.ones(5, 5).long()), "a mask is bool .* and torch.int64 was given"),
        (
            "encoder",
            lambda m: m(TOKENS, segments=TOKENS),
            "segments were given, but the model has no segment embeddings",
        ),
        (
            "encoder",
            lambda m: m(TOKENS, last_only=True),
            "last_only is for causal models, and this one is of kind enco",
        ),
        ("image", lambda m: m(torch.zeros(2, 1, 6, 6), once_per_token=True), "once_per_token is for whole sequences"),
        (
            "decoder",
            lambda m: m(TOKENS, once_per_token=True, cache=m.new_cache(2)),
            "once_per_token is for whole sequences",
        ),
        (
            "decoder",
            lambda m: Transformer(m.config.model_copy(update={"embedding_dropout": 0.1}))(TOKENS, once_per_token=True),
            "once_per_token can't be combined with embedding_dropout",
        ),
        ("encoder", lambda m: m.new_cache(2), "kind encoder reads everything at once: it has no cache"),
        ("image", lambda m: m(torch.zeros(2, 1, 6, 7)), r"images are \[batch, 1, 6, 6\] floats, and \[2, 1, 6, 7\]"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_in_a_sentence(kind, call, sentence):
    with pytest.raises(InputError, match=sentence):
        call(model_of(kind))
