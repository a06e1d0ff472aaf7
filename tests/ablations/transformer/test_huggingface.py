"""Tests that checkpoints of GPT-2 and BERT are loaded with the logits of `transformers`, and that they take arms."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.errors import InputError
from trans4init.ablations.fit import fit
from trans4init.ablations.functions import Domain
from trans4init.ablations.nets import build_net
from trans4init.ablations.slots.guard import FrozenGuard
from trans4init.ablations.slots.slot import Slot
from trans4init.ablations.transformer import Transformer, greedy, load_pretrained

GPT2 = {"vocab_size": 31, "n_positions": 20, "n_embd": 16, "n_layer": 3, "n_head": 4}
BERT = {
    "vocab_size": 31,
    "max_position_embeddings": 20,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "num_labels": 3,
}
TOKENS = torch.randint(31, (3, 18), generator=torch.Generator().manual_seed(0))
SEGMENTS = torch.randint(2, (3, 18), generator=torch.Generator().manual_seed(1))
LENGTHS = torch.tensor([18, 5, 11])


def saved(folder, architecture, **config):
    """Save a model with weights (norms and biases too) far from their initial values in a checkpoint folder."""
    torch.manual_seed(0)
    known = (
        transformers.GPT2Config(**GPT2 | config) if "GPT2" in architecture else transformers.BertConfig(**BERT | config)
    )
    model = getattr(transformers, architecture)(known).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return model


def rewritten(folder, change):
    """Put what `change` makes of the checkpoint's tensors in their place."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


@torch.no_grad()
def check_logits(folder, architecture):
    """Compare with what transformers makes of the same folder."""
    expected = getattr(transformers, architecture).from_pretrained(folder).eval()(TOKENS).logits
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(load_pretrained(folder)(TOKENS), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("config", [{}, {"activation_function": "relu", "n_inner": 40}, {"tie_word_embeddings": False}])
def test_gpt2_has_the_logits_of_transformers(tmp_path, config):
    reference = saved(tmp_path, "GPT2LMHeadModel", **config)
    model = load_pretrained(tmp_path)
    assert type(model) is Transformer
    with torch.no_grad():
        expected = reference(TOKENS).logits
        assert expected.abs().max() > 1
        torch.testing.assert_close(model(TOKENS), expected, rtol=0, atol=1e-4)


def test_gpt2_without_its_output_layer_is_tied_to_its_embedding(tmp_path):
    reference = saved(tmp_path, "GPT2Model")
    model = load_pretrained(tmp_path)
    with torch.no_grad():
        expected = reference(TOKENS).last_hidden_state @ reference.wte.weight.T
        torch.testing.assert_close(model(TOKENS), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "architecture",
    ["BertForMaskedLM", "BertForPreTraining", "BertForSequenceClassification", "BertForTokenClassification"],
)
def test_bert_has_the_logits_of_transformers(tmp_path, architecture):
    """Uses two kinds of segments, and padding behind the shorter sequences."""
    reference, model = saved(tmp_path, architecture), load_pretrained(tmp_path)
    real = torch.arange(18) < LENGTHS[:, None]
    with torch.no_grad():
        outputs = reference(TOKENS, token_type_ids=SEGMENTS, attention_mask=real.long())
        expected = outputs.prediction_logits if architecture == "BertForPreTraining" else outputs.logits
        logits = model(TOKENS, segments=SEGMENTS, lengths=LENGTHS)
    assert logits.shape == expected.shape
    assert expected.abs().max() > 0.5
    if logits.dim() == 3:
        logits, expected = logits[real], expected[real]
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)


def test_bert_without_segments_is_all_of_the_first_kind(tmp_path):
    reference, model = saved(tmp_path, "BertForMaskedLM"), load_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS), reference(TOKENS).logits, rtol=0, atol=1e-4)


def test_a_checkpoint_in_half_precision_and_with_the_old_names_is_read(tmp_path):
    """The names are those of the published bert-base-uncased: gamma, beta, position_ids, a pooler that isn't used."""
    reference = saved(tmp_path, "BertForMaskedLM")
    expected = load_pretrained(tmp_path)(TOKENS)
    weights = load_file(tmp_path / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in weights.items()
    }
    old["bert.embeddings.position_ids"] = torch.arange(20)[None]
    old["bert.pooler.dense.weight"] = torch.zeros(16, 16)
    save_file(old, tmp_path / "model.safetensors")
    assert torch.equal(load_pretrained(tmp_path)(TOKENS), expected)
    save_file({name: value.half() for name, value in weights.items()}, tmp_path / "model.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(
            load_pretrained(tmp_path)(TOKENS), reference.half().float()(TOKENS).logits, rtol=0, atol=1e-4
        )


OWN = {"GPT2LMHeadModel": "lm_head.weight", "BertForMaskedLM": "cls.predictions.decoder.weight"}
EMBEDDING = {"GPT2LMHeadModel": "transformer.wte.weight", "BertForMaskedLM": "bert.embeddings.word_embeddings.weight"}


@pytest.mark.parametrize("architecture", OWN)
def test_an_output_matrix_in_the_file_is_used_whatever_the_config_says(tmp_path, architecture):
    saved(tmp_path, architecture)
    own = torch.randn(31, 16, generator=torch.Generator().manual_seed(2))
    rewritten(tmp_path, lambda tensors: tensors | {OWN[architecture]: own})
    assert not load_pretrained(tmp_path).config.tied_output
    check_logits(tmp_path, architecture)


@pytest.mark.parametrize("architecture", OWN)
def test_tied_matrices_may_be_in_the_file_twice_or_by_the_outputs_name_alone(tmp_path, architecture):
    """`safetensors.torch.save_model` keeps one name of a shared tensor, and may keep the output's."""
    saved(tmp_path, architecture)
    embedding, own = EMBEDDING[architecture], OWN[architecture]
    rewritten(tmp_path, lambda tensors: tensors | {own: tensors[embedding].clone()})
    assert load_pretrained(tmp_path).config.tied_output
    check_logits(tmp_path, architecture)
    rewritten(tmp_path, lambda tensors: {name: value for name, value in tensors.items() if name != embedding})
    assert load_pretrained(tmp_path).config.tied_output
    check_logits(tmp_path, architecture)
    changed(tmp_path, tie_word_embeddings=False)
    with pytest.raises(InputError, match=f"lacks .*{embedding.partition('.')[2]}"):
        load_pretrained(tmp_path)


def test_bert_with_an_output_layer_of_its_own_has_the_logits_of_transformers(tmp_path):
    saved(tmp_path, "BertForMaskedLM", tie_word_embeddings=False)
    check_logits(tmp_path, "BertForMaskedLM")
    rewritten(
        tmp_path, lambda tensors: {name: t for name, t in tensors.items() if name != "cls.predictions.decoder.bias"}
    )
    with pytest.raises(InputError, match=r"lacks cls\.predictions\.decoder\.bias"):
        load_pretrained(tmp_path)


def test_berts_output_bias_is_read_by_its_other_name(tmp_path):
    saved(tmp_path, "BertForMaskedLM")
    rewritten(tmp_path, lambda t: t | {"cls.predictions.decoder.bias": t.pop("cls.predictions.bias")})
    check_logits(tmp_path, "BertForMaskedLM")
    rewritten(tmp_path, lambda t: t | {"cls.predictions.bias": t["cls.predictions.decoder.bias"] + 1})
    check_logits(tmp_path, "BertForMaskedLM")


def test_a_checkpoint_in_several_files_is_read(tmp_path):
    saved(tmp_path, "GPT2LMHeadModel").save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    check_logits(tmp_path / "shards", "GPT2LMHeadModel")


@pytest.mark.parametrize("architectures", [None, [], "GPT2LMHeadModel"])
def test_a_config_that_names_no_class_is_read_where_the_tensors_tell_it(tmp_path, architectures):
    saved(tmp_path, "GPT2LMHeadModel")
    changed(tmp_path, architectures=architectures)
    check_logits(tmp_path, "GPT2LMHeadModel")


def test_a_bert_without_a_class_is_one_with_logits_of_tokens_or_refused(tmp_path):
    saved(tmp_path, "BertForMaskedLM")
    changed(tmp_path, architectures=None)
    check_logits(tmp_path, "BertForMaskedLM")
    saved(tmp_path, "BertForSequenceClassification")
    changed(tmp_path, architectures=None)
    with pytest.raises(
        InputError, match=r"doesn't name the class in `architectures`, .* write the one .* BertForMaskedLM"
    ):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("architecture", ["BertForSequenceClassification", "BertForTokenClassification"])
def test_classifier_dropout_is_the_dropout_before_the_classes(tmp_path, architecture):
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    reference = saved(tmp_path, architecture, classifier_dropout=0.9, **off).train()
    model = load_pretrained(tmp_path).train()
    assert (model.output.dropout, model.config.dropout) == (0.9, 0.0)
    with torch.no_grad():
        torch.manual_seed(3)
        expected = reference(TOKENS).logits
        torch.manual_seed(3)
        torch.testing.assert_close(model(TOKENS), expected, rtol=0, atol=1e-4)
        assert (model(TOKENS) - expected).abs().max() > 0.1
        changed(tmp_path, classifier_dropout=None)
        assert load_pretrained(tmp_path).output.dropout == 0.0


def test_weights_in_bin_files_are_refused_with_how_to_convert_them(tmp_path):
    model = saved(tmp_path, "GPT2LMHeadModel")
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"in \.bin files, .* run `.*` in Python\.") as refused:
        load_pretrained(tmp_path)
    exec(str(refused.value).split("`")[1])
    check_logits(tmp_path, "GPT2LMHeadModel")


def test_a_loaded_gpt2_continues_a_prompt_as_transformers_does(tmp_path):
    reference, model = saved(tmp_path, "GPT2LMHeadModel"), load_pretrained(tmp_path)
    prompts = TOKENS[:, :6]
    expected = reference.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=10,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    assert greedy(model, prompts, maximum=10).tokens.tolist() == expected[:, 6:].tolist()


@pytest.mark.parametrize("architecture", ["GPT2LMHeadModel", "BertForMaskedLM"])
def test_gelu_in_a_pretrained_model_becomes_a_fitted_net_that_stays_frozen(tmp_path, architecture):
    saved(tmp_path, architecture)
    model = load_pretrained(tmp_path)
    before = model(TOKENS)
    record = apply_arm(model, "activation", "learned-frozen", fit("gelu", "mlp-relu", size={"hidden": (16,)}))
    assert record.function == model.config.activation
    guard = FrozenGuard(model, record)
    after = model(TOKENS)
    assert 0 < (after - before).abs().max() < 0.5 * before.abs().max()
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    after.square().mean().backward()
    optimiser.step()
    guard.check()


def test_every_slot_of_a_pretrained_model_takes_an_arm(tmp_path):
    saved(tmp_path, "GPT2LMHeadModel")
    model = load_pretrained(tmp_path)
    before = model(TOKENS)
    table = apply_arm(model, "position", "free-table")
    assert table.moves == ("position.content.table",)
    assert torch.equal(model(TOKENS), before)  # it starts from the trained positions
    for slot in ("softmax", "softmax-reciprocal", "normalization", "scale"):
        assert apply_arm(model, slot, "analytic").output_difference_max == 0
    mixing = build_net("linear", Domain(-4, 4, integer=False), 4)
    assert apply_arm(model, "head-mixing", "corrected", mixing).output_difference_max < 1e-5
    for slot in ("scale", "normalization", "activation", "softmax"):
        assert apply_arm(model, slot, "none").output_difference_max > 1e-3
    named = {module.name for module in model.modules() if isinstance(module, Slot)}
    assert named == {"position", "softmax", "softmax-reciprocal", "normalization", "scale", "head-mixing", "activation"}


def changed(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_type": "llama"}, r"holds a llama, and load_pretrained reads gpt2 and bert alone; .* put a Slot"),
        ({"model_type": "gpt3"}, r"holds a gpt3, and load_pretrained reads gpt2 and bert alone"),
        ({"architectures": ["GPT2ForTokenClassification"]}, "GPT2ForTokenClassification.*, and only GPT2LMHead"),
        ({"n_head": 3}, r"config.json: width 16 can't be shared by 3 heads evenly"),
        ({"n_layer": 4}, r"lacks h\.3\.attn\.c_attn\.bias, .* and 8 more\."),
        ({"n_layer": 2}, r"has h\.2\.attn\.c_attn\.bias, .* and 8 more, which a model with this config doesn't use"),
        ({"n_positions": 30}, r"wpe\.weight is \[20, 16\], and the config says \[30, 16\]"),
        ({"n_inner": 60}, r"h\.0\.mlp\.c_fc\.weight is \[16, 64\], and the config says \[16, 60\]"),
        ({"n_layr": 4}, "n_layr is 4, and nothing here reads that key"),
    ],
)
def test_what_is_not_computed_here_is_refused_in_a_sentence(tmp_path, changes, sentence):
    saved(tmp_path, "GPT2LMHeadModel")
    changed(tmp_path, **changes)
    with pytest.raises(InputError, match=sentence):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("GPT2LMHeadModel", "score.weight"),
        ("GPT2LMHeadModel", "lm_head.bias"),
        ("GPT2LMHeadModel", "h.0.attn.c_attn.weight_scale"),
        ("BertForSequenceClassification", "cls.predictions.bias"),
        ("BertForSequenceClassification", "cls.predictions.decoder.weight"),
        ("BertForTokenClassification", "cls.seq_relationship.weight"),
        ("BertForMaskedLM", "classifier.weight"),
        ("BertForMaskedLM", "bert.encoder.layer.0.attention.self.distance_embedding.weight"),
    ],
)
def test_a_tensor_that_is_not_used_is_refused_by_name(tmp_path, architecture, name):
    saved(tmp_path, architecture)
    rewritten(tmp_path, lambda tensors: tensors | {name: torch.ones(2)})
    with pytest.raises(InputError, match=f"has {name.removeprefix('bert.')}, which a model with this config"):
        load_pretrained(tmp_path)


def test_buffers_that_are_computed_from_the_sizes_may_be_in_the_file(tmp_path):
    saved(tmp_path, "GPT2LMHeadModel")
    buffers = {"h.1.attn.bias": torch.ones(1, 1, 20, 20).tril(), "transformer.h.1.attn.masked_bias": torch.tensor(-1e4)}
    rewritten(tmp_path, lambda tensors: tensors | buffers)
    check_logits(tmp_path, "GPT2LMHeadModel")
    saved(tmp_path, "BertForTokenClassification")
    buffers = {f"bert.embeddings.{name}": torch.arange(20)[None] for name in ("position_ids", "token_type_ids")}
    rewritten(tmp_path, lambda tensors: tensors | buffers | {"bert.pooler.dense.bias": torch.ones(16)})
    check_logits(tmp_path, "BertForTokenClassification")


def test_a_folder_that_is_no_checkpoint_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path} is not a Hugging Face checkpoint"):
        load_pretrained(tmp_path)
    saved(tmp_path, "GPT2LMHeadModel")
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="is not a Hugging Face checkpoint"):
        load_pretrained(tmp_path)
