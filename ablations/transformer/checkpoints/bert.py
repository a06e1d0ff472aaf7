"""BERT: the config and the layout of its checkpoints, with the output layers of four of transformers' classes."""

import re

from torch import Tensor

from trans4init.ablations.errors import InputError
from trans4init.ablations.settings.model import TransformerConfig
from trans4init.ablations.transformer.checkpoints.activations import ACTIVATIONS
from trans4init.ablations.transformer.checkpoints.config_json import ConfigJson
from trans4init.ablations.transformer.checkpoints.tensors import Layout, embedding_source

__all__ = ["BERT_CLASSES", "bert", "bert_name"]

BERT_CLASSES = {
    "BertForMaskedLM": "tokens",
    "BertForPreTraining": "tokens",
    "BertForSequenceClassification": "first",
    "BertForTokenClassification": "none",
}
"""The output of each class that can be loaded: logits of tokens, or of classes with that pooling."""

_BLOCK = {
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "feed_forward.up": "intermediate.dense",
    "feed_forward.out": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}
"""The parts of a block and their names in a checkpoint; queries, keys and values come from three more."""

_OUTPUT_PARTS = {
    "tokens": {
        "output.transform": "cls.predictions.transform.dense",
        "output.norm": "cls.predictions.transform.LayerNorm",
    },
    "first": {"output.transform": "pooler.dense", "output.linear": "classifier"},
    "none": {"output.linear": "classifier"},
}

_UNUSED = {
    "tokens": r"|pooler\.dense\.(weight|bias)|cls\.seq_relationship\.(weight|bias)",
    "first": "",
    "none": r"|pooler\.dense\.(weight|bias)",
}
"""The layers of the next-sentence output, which published files keep beside outputs that don't depend on them."""

_DECODER = "cls.predictions.decoder"
_EMBEDDING = "embeddings.word_embeddings.weight"


def bert_name(name: str) -> str:
    """Return a tensor's name without the prefix of the classes with an output, and with the new names of norms."""
    name = name.removeprefix("bert.")
    return re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name))


def bert(config: ConfigJson, class_name: str | None, tensors: dict[str, Tensor]) -> tuple[TransformerConfig, Layout]:
    """Return the config of a BERT encoder with an output layer, and where its tensors are."""
    output = _output(config, class_name, tensors)
    classes, classifier_dropout = config.labels(), config.optional_share("classifier_dropout")
    says_tied = config.flag("tie_word_embeddings", True)
    embedding, tied = _EMBEDDING, True
    if output == "tokens":
        embedding, tied = embedding_source(tensors, _EMBEDDING, f"{_DECODER}.weight", tied=says_tied)
    dropout = config.share("hidden_dropout_prob", 0.1)
    sizes = TransformerConfig(
        kind="encoder",
        layers=config.count("num_hidden_layers", 12),
        width=config.count("hidden_size", 768),
        heads=config.count("num_attention_heads", 12),
        context=config.count("max_position_embeddings", 512),
        vocabulary=config.count("vocab_size", 30522),
        segments=config.count("type_vocab_size", 2),
        feed_forward=config.count("intermediate_size", 3072),
        activation=config.choice("hidden_act", "gelu", ACTIVATIONS),
        position="learned-table",
        norm_placement="post",
        normalization_epsilon=config.positive("layer_norm_eps", 1e-12),
        embedding_norm=True,
        embedding_scale=False,
        tied_output=tied,
        bias=True,
        dropout=dropout,
        attention_dropout=config.share("attention_probs_dropout_prob", 0.1),
        embedding_dropout=dropout,
        output_transform=output != "none",
        **{}
        if output == "tokens"
        else {"classes": classes, "pooling": output, "classifier_dropout": classifier_dropout},
    )
    config.refuse_unread(
        "directionality",
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
    )
    sources = _sources(sizes.layers, output) | {"embedding.weight": (embedding,)}
    unused = r"embeddings\.(position_ids|token_type_ids)" + _UNUSED[output]
    if output == "tokens":
        own_bias = f"{_DECODER}.bias" in tensors or not says_tied
        sources["output.bias"] = (f"{_DECODER}.bias" if own_bias else "cls.predictions.bias",)
        unused += r"|cls\.predictions\.bias"  # transformers computes with the decoder's where a file has both
        if tied:
            unused += r"|cls\.predictions\.decoder\.weight"
        else:
            sources["output.weight"] = (f"{_DECODER}.weight",)
    return sizes, Layout(sources, unused)


def _output(config: ConfigJson, class_name: str | None, tensors: dict[str, Tensor]) -> str:
    """Return the output of the checkpoint's class; raise InputError for what isn't computed for any of them."""
    config.expect(
        position_embedding_type="absolute",
        is_decoder=False,
        add_cross_attention=False,
        is_encoder_decoder=False,
        pruned_heads={},
        tie_encoder_decoder=False,
    )
    if class_name is None and not any(name.startswith("cls.predictions.") for name in tensors):
        raise InputError(
            f"{config.path} doesn't name the class in `architectures`, and the tensors don't tell it: write the one "
            f"that they are of, of {', '.join(BERT_CLASSES)}, there."
        )
    return "tokens" if class_name is None else BERT_CLASSES[class_name]


def _sources(layers: int, output: str) -> dict[str, tuple[str, ...]]:
    """Return where the tensors are that don't depend on what is tied."""
    sources: dict[str, tuple[str, ...]] = {
        "position.content.table": ("embeddings.position_embeddings.weight",),
        "segments.weight": ("embeddings.token_type_embeddings.weight",),
    }
    for kind in ("weight", "bias"):
        sources[f"embedding_norm.{kind}"] = (f"embeddings.LayerNorm.{kind}",)
        for layer in range(layers):
            block = f"encoder.layer.{layer}"
            sources[f"blocks.{layer}.attention.queries_keys_values.{kind}"] = tuple(
                f"{block}.attention.self.{part}.{kind}" for part in ("query", "key", "value")
            )
            for name, source in _BLOCK.items():
                sources[f"blocks.{layer}.{name}.{kind}"] = (f"{block}.{source}.{kind}",)
        for name, source in _OUTPUT_PARTS[output].items():
            sources[f"{name}.{kind}"] = (f"{source}.{kind}",)
    return sources
