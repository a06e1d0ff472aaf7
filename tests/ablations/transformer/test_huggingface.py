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
        ({"model_type": "gpt3"}, "unknown model_type 'gpt3'; did you mean 'gpt2'"),
        ({"architectures": ["GPT2ForTokenClassification"]}, "is a GPT2ForTokenClassification, and only GPT2LMHead"),
        ({"activation_function": "gelu_nw"}, "unknown activation 'gelu_nw'; did you mean 'gelu_new'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True, and only False"),
        ({"n_head": None}, r"config.json: heads: input should be a valid integer, and None was given"),
        ({"n_layer": 4}, r"lacks blocks\.3\.attention\.out\.bias"),
        ({"n_layer": 2}, r"has blocks\.2\.attention\.out\.bias"),
        ({"n_positions": 30}, r"position\.content\.table is \[20, 16\], and the config says \[30, 16\]"),
    ],
)
def test_what_is_not_computed_here_is_refused_in_a_sentence(tmp_path, changes, sentence):
    saved(tmp_path, "GPT2LMHeadModel")
    changed(tmp_path, **changes)
    with pytest.raises(InputError, match=sentence):
        load_pretrained(tmp_path)


def test_a_folder_that_is_no_checkpoint_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path} is not a Hugging Face checkpoint"):
        load_pretrained(tmp_path)
    saved(tmp_path, "GPT2LMHeadModel")
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="is not a Hugging Face checkpoint"):
        load_pretrained(tmp_path)
