"""Tests that every key of a config.json is read with the defaults of transformers, or refused by name."""

import json

import pytest
import torch
import transformers
from transformers.activations import ACT2FN

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import get_function
from trans4init.ablations.transformer.checkpoints.activations import ACTIVATIONS
from trans4init.ablations.transformer.checkpoints.bert import bert
from trans4init.ablations.transformer.checkpoints.config_json import ConfigJson
from trans4init.ablations.transformer.checkpoints.gpt2 import gpt2

GPT2_OLD = {  # openai-community/gpt2 and distilgpt2 on the Hub
    "_num_labels": 1,
    "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0},
    "n_ctx": 1024,
    "summary_activation": None,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
}
BERT_OLD = {  # google-bert/bert-base-uncased, bert-base-multilingual-cased and dbmdz's fine-tuned ones on the Hub
    "_num_labels": 9,
    "directionality": "bidi",
    "finetuning_task": "sst2",
    "gradient_checkpointing": False,
    "output_past": True,
    "pooler_fc_size": 768,
    "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128,
    "pooler_type": "first_token_transform",
    "position_embedding_type": "absolute",
    "transformers_version": "4.6.0.dev0",
    "use_cache": True,
}
OF_VERSION_4 = {  # what `to_json_file` of transformers 4 could write in every config
    "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None,
    "is_decoder": False,
    "pruned_heads": {},
    "tf_legacy_loss": False,
    "tie_encoder_decoder": False,
    "torch_dtype": "float32",
    "torchscript": False,
    "use_bfloat16": False,
}


def config_json(folder, values):
    path = folder / "config.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return ConfigJson(path)


def gpt2_sizes(folder, values):
    return gpt2(config_json(folder, values), "GPT2LMHeadModel", {})[0]


def bert_sizes(folder, values, class_name="BertForTokenClassification"):
    return bert(config_json(folder, values), class_name, {})[0]


def test_keys_left_out_of_a_gpt2_have_the_defaults_of_transformers(tmp_path):
    theirs, ours = transformers.GPT2Config(), gpt2_sizes(tmp_path, {})
    assert (ours.layers, ours.width, ours.heads) == (theirs.n_layer, theirs.n_embd, theirs.n_head)
    assert (ours.context, ours.vocabulary, ours.feed_forward) == (theirs.n_positions, theirs.vocab_size, theirs.n_inner)
    dropouts = (ours.dropout, ours.attention_dropout, ours.embedding_dropout)
    assert dropouts == (theirs.resid_pdrop, theirs.attn_pdrop, theirs.embd_pdrop)
    assert ours.normalization_epsilon == theirs.layer_norm_epsilon
    assert (ours.activation, ours.tied_output) == (ACTIVATIONS[theirs.activation_function], theirs.tie_word_embeddings)


def test_keys_left_out_of_a_bert_have_the_defaults_of_transformers(tmp_path):
    theirs, ours = transformers.BertConfig(), bert_sizes(tmp_path, {})
    assert (ours.layers, ours.width) == (theirs.num_hidden_layers, theirs.hidden_size)
    assert (ours.heads, ours.feed_forward) == (theirs.num_attention_heads, theirs.intermediate_size)
    assert (ours.context, ours.vocabulary) == (theirs.max_position_embeddings, theirs.vocab_size)
    assert (ours.segments, ours.classes) == (theirs.type_vocab_size, theirs.num_labels)
    assert ours.dropout == ours.embedding_dropout == theirs.hidden_dropout_prob
    assert ours.attention_dropout == theirs.attention_probs_dropout_prob
    assert (ours.classifier_dropout, ours.normalization_epsilon) == (theirs.classifier_dropout, theirs.layer_norm_eps)
    assert ours.activation == ACTIVATIONS[theirs.hidden_act]


@pytest.mark.parametrize(
    ("sizes", "default", "old"),
    [
        (gpt2_sizes, transformers.GPT2Config(), GPT2_OLD),
        (bert_sizes, transformers.BertConfig(), BERT_OLD),
    ],
)
def test_every_key_that_transformers_or_the_hub_writes_is_known(tmp_path, sizes, default, old):
    generation = transformers.GenerationConfig._get_default_generation_params()
    assert len(generation) > 20
    written = default.to_dict() | generation | OF_VERSION_4 | old
    del written["model_type"]  # load_pretrained reads it to find the family
    assert sizes(tmp_path, written) == sizes(tmp_path, {"id2label": written["id2label"]})


def test_each_key_changes_the_size_that_it_is_for(tmp_path):
    gpt2_keys = {
        "n_layer": ("layers", 5),
        "n_embd": ("width", 24),
        "n_head": ("heads", 6),
        "n_positions": ("context", 40),
        "vocab_size": ("vocabulary", 50),
        "n_inner": ("feed_forward", 60),
        "resid_pdrop": ("dropout", 0.2),
        "attn_pdrop": ("attention_dropout", 0.3),
        "embd_pdrop": ("embedding_dropout", 0),
        "layer_norm_epsilon": ("normalization_epsilon", 1e-6),
    }
    ours = gpt2_sizes(tmp_path, {key: value for key, (_, value) in gpt2_keys.items()})
    assert all(getattr(ours, name) == value for name, value in gpt2_keys.values())
    bert_keys = {
        "num_hidden_layers": ("layers", 5),
        "hidden_size": ("width", 24),
        "num_attention_heads": ("heads", 6),
        "max_position_embeddings": ("context", 40),
        "vocab_size": ("vocabulary", 50),
        "intermediate_size": ("feed_forward", 60),
        "type_vocab_size": ("segments", 3),
        "num_labels": ("classes", 7),
        "hidden_dropout_prob": ("dropout", 0.2),
        "attention_probs_dropout_prob": ("attention_dropout", 0.3),
        "classifier_dropout": ("classifier_dropout", 0.9),
        "layer_norm_eps": ("normalization_epsilon", 1e-6),
    }
    ours = bert_sizes(tmp_path, {key: value for key, (_, value) in bert_keys.items()})
    assert all(getattr(ours, name) == value for name, value in bert_keys.values())
    assert ours.embedding_dropout == 0.2


def test_the_general_names_of_gpt2s_keys_are_read_and_must_agree_with_its_own(tmp_path):
    general = {
        "hidden_size": 24,
        "num_hidden_layers": 5,
        "num_attention_heads": 6,
        "max_position_embeddings": 40,
    }
    own = {"n_embd": 24, "n_layer": 5, "n_head": 6, "n_positions": 40}
    assert gpt2_sizes(tmp_path, general) == gpt2_sizes(tmp_path, own) == gpt2_sizes(tmp_path, general | own)
    with pytest.raises(InputError, match=r"config.json: n_layer is 4, and num_hidden_layers is 5: remove one"):
        gpt2_sizes(tmp_path, general | {"n_layer": 4})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"n_head": None}, "n_head is null, and a whole number from 1 is expected"),
        ({"n_layer": 0}, "n_layer is 0, and a whole number from 1"),
        ({"n_layer": True}, "n_layer is true, and a whole number from 1"),
        ({"n_inner": "4"}, 'n_inner is "4", and a whole number from 1'),
        ({"attn_pdrop": 1}, "attn_pdrop is 1, and a number from 0 to below 1"),
        ({"layer_norm_epsilon": float("nan")}, "layer_norm_epsilon is NaN, and a number above 0"),
        ({"tie_word_embeddings": "no"}, 'tie_word_embeddings is "no", and true or false'),
        ({"activation_function": "quick_gelu"}, 'activation_function is "quick_gelu", and only gelu, .* are computed'),
        ({"activation_function": None}, "activation_function is null, and only gelu"),
        ({"activation_function": ["gelu"]}, r'activation_function is \["gelu"\], and only gelu'),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is true, and only false is comp"),
        ({"scale_attn_weights": False}, "scale_attn_weights is false, and only true is computed"),
        ({"pruned_heads": {"0": [1]}}, r'pruned_heads is {"0": \[1\]}, and only {} is computed'),
        ({"add_cross_attention": True}, "add_cross_attention is true, and only false"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is .*, and nothing here reads that key: remove it"),
        ({"per_layer_config": {"0": {"n_inner": 8}}}, "per_layer_config is .*, and nothing here reads that key"),
        ({"n_layr": 4}, "n_layr is 4, and nothing here reads that key"),
    ],
)
def test_a_value_that_is_not_computed_here_is_refused_by_its_key(tmp_path, changes, sentence):
    with pytest.raises(InputError, match=f"config.json: {sentence}"):
        gpt2_sizes(tmp_path, changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"position_embedding_type": "relative_key"}, 'position_embedding_type is "relative_key", and only "absolute"'),
        ({"is_decoder": True}, "is_decoder is true, and only false"),
        ({"classifier_dropout": -1}, "classifier_dropout is -1, and a number from 0 to below 1"),
        ({"id2label": ["a", "b"]}, r'id2label is \["a", "b"\], and an object with an entry for each class'),
        ({"hidden_act": "mish"}, 'hidden_act is "mish", and only gelu'),
        ({"embedding_size": 16}, "embedding_size is 16, and nothing here reads that key"),
    ],
)
def test_what_no_bert_here_computes_is_refused_by_its_key(tmp_path, changes, sentence):
    with pytest.raises(InputError, match=f"config.json: {sentence}"):
        bert_sizes(tmp_path, changes)


def test_a_file_without_keys_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"config.json holds \[1\], and an object of keys and values is expected"):
        config_json(tmp_path, [1])
    with pytest.raises(InputError, match=r"config.json can't be read as JSON: .*line 1"):
        config_json(tmp_path, "{torn")
    with pytest.raises(InputError, match=r'model_type is null, and the family\'s name is expected, such as "gpt2"'):
        config_json(tmp_path, {}).model_type()
    with pytest.raises(InputError, match=r"nowhere is not a .* checkpoint .*; to fetch one, run `hf download NAME"):
        ConfigJson(tmp_path / "nowhere" / "config.json")


@pytest.mark.parametrize("value", [None, [], "A", ["A"]])
def test_architectures_may_be_empty_or_name_one_class(tmp_path, value):
    assert config_json(tmp_path, {"architectures": value}).class_name(("A", "B")) == ("A" if value else None)
    assert config_json(tmp_path, {}).class_name(("A", "B")) is None


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (["C"], r'architectures is \["C"\], and only A, B can be loaded'),
        ("C", 'architectures is "C", and only A, B can be loaded'),
        ([["A"]], r"and only A, B can be loaded"),
        (["A", "B"], "and a list with the name of one class is expected"),
        ({"A": 1}, "and a list with the name of one class is expected"),
    ],
)
def test_another_class_is_refused_by_name(tmp_path, value, sentence):
    with pytest.raises(InputError, match=sentence):
        config_json(tmp_path, {"architectures": value}).class_name(("A", "B"))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_the_one_that_transformers_has_by_that_name(name):
    inputs = torch.linspace(-6, 6, 501, dtype=torch.float64)
    torch.testing.assert_close(get_function(ACTIVATIONS[name]).analytic(inputs), ACT2FN[name](inputs))
