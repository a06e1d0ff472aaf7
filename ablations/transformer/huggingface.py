"""Loads GPT-2 and BERT from a Hugging Face checkpoint folder into the same classes as every other model here.

The folder holds `config.json` and `model.safetensors`; the package `transformers` is not needed.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trans4init.ablations.errors import InputError, unknown_name
from trans4init.ablations.functions.position_absolute import LearnedTable
from trans4init.ablations.settings.base import ValidationError
from trans4init.ablations.settings.error_sentence import sentence
from trans4init.ablations.transformer.model import Transformer, TransformerConfig

__all__ = ["load_pretrained"]

_ACTIVATION_NAMES = {
    "gelu": "gelu",
    "gelu_new": "gelu-tanh",
    "gelu_pytorch_tanh": "gelu-tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


def load_pretrained(folder: Path | str) -> Transformer:
    """Load the model in a checkpoint folder of GPT-2 or BERT, in evaluation mode and float32; its slots take any arm.

    GPT-2: a decoder. BERT: an encoder that gives logits of tokens (BertForMaskedLM, BertForPreTraining), of classes
    (BertForSequenceClassification) or of classes per token (BertForTokenClassification). Logits are those of
    `transformers` to 1e-4. Raises InputError for a folder that isn't such a checkpoint, and for a config that asks for
    something that these classes don't compute.
    """
    # Imported here: the package of the Transformer imports this file, and models are measured without safetensors.
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        config_json: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors")
        family, [architecture, *_] = config_json["model_type"], config_json["architectures"]
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise InputError(
            f"{folder} is not a Hugging Face checkpoint with config.json and model.safetensors: {error}"
        ) from None
    if family not in _FAMILIES:
        raise unknown_name("model_type", str(family), _FAMILIES)
    try:
        config, translate = _FAMILIES[family](config_json, architecture, weights)
        tensors = translate(dict(weights))
    except KeyError as error:
        raise InputError(f"{folder} lacks {error}, which a {architecture} needs.") from None
    except ValidationError as error:
        raise InputError(sentence(error, TransformerConfig, str(folder / "config.json"))) from None
    model = Transformer(config).eval()
    _fill(model, {name: value.float() for name, value in tensors.items()}, str(folder))
    model.position.function = _LoadedTable(tensors["position.content.table"])
    return model


class _LoadedTable(LearnedTable):
    """A position function whose table starts from trained positions: arm `free-table` starts from the checkpoint's."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows

    def initial_table(self, inputs: Tensor, generator: torch.Generator, **shape: int) -> Tensor:
        """Return the trained rows, [N, width]."""
        return self._rows[inputs.long()].to(inputs)


def _fill(model: Transformer, tensors: dict[str, Tensor], folder: str) -> None:
    """Copy the tensors into the model; raise InputError unless their names and shapes are the model's."""
    expected = model.state_dict()
    missing, extra = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing or extra:
        raise InputError(
            f"{folder} lacks {', '.join(missing) or 'no tensor'} and has {', '.join(extra) or 'no tensor'} more."
        )
    for name, value in tensors.items():
        shape = list(expected[name].shape)
        if list(value.shape) != shape:
            raise InputError(f"{folder}: {name} is {list(value.shape)}, and the config says {shape}.")
    model.load_state_dict(tensors)


Translate = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def _renamed(weights: dict[str, Tensor], names: dict[str, str], ignored: str = "$^") -> dict[str, Tensor]:
    """Rename tensors by `names`: from patterns of whole checkpoint names to names here, with groups for {0}, {1} …

    Tensors whose names match `ignored` are left out; others keep their names, and `_fill` reports them as extra.
    """
    renamed: dict[str, Tensor] = {}
    for checkpoint_name, value in weights.items():
        for pattern, name in names.items():
            match = re.fullmatch(pattern, checkpoint_name)
            if match:
                renamed[name.format(*match.groups())] = value
                break
        else:
            if not re.fullmatch(ignored, checkpoint_name):
                renamed[checkpoint_name] = value
    return renamed


_GPT2_NAMES = {
    r"wte\.weight": "embedding.weight",
    r"wpe\.weight": "position.content.table",
    r"h\.(\d+)\.ln_1\.(weight|bias)": "blocks.{0}.attention_norm.{1}",
    r"h\.(\d+)\.ln_2\.(weight|bias)": "blocks.{0}.feed_forward_norm.{1}",
    r"h\.(\d+)\.attn\.c_attn\.(weight|bias)": "blocks.{0}.attention.queries_keys_values.{1}",
    r"h\.(\d+)\.attn\.c_proj\.(weight|bias)": "blocks.{0}.attention.out.{1}",
    r"h\.(\d+)\.mlp\.c_fc\.(weight|bias)": "blocks.{0}.feed_forward.up.{1}",
    r"h\.(\d+)\.mlp\.c_proj\.(weight|bias)": "blocks.{0}.feed_forward.out.{1}",
    r"ln_f\.(weight|bias)": "norm.{0}",
    r"lm_head\.weight": "output.weight",
}


def _gpt2(
    config_json: dict[str, Any], architecture: str, weights: dict[str, Tensor]
) -> tuple[TransformerConfig, Translate]:
    """Return the config of a GPT-2 decoder, and what renames its tensors. Its `Conv1D` weights are [in, out]."""
    _only(architecture, "GPT2LMHeadModel", "GPT2Model")
    _refuse(config_json, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    tied = config_json.get("tie_word_embeddings", True)
    config = TransformerConfig.preset(
        "gpt2-small",
        layers=config_json["n_layer"],
        width=config_json["n_embd"],
        heads=config_json["n_head"],
        context=config_json["n_positions"],
        vocabulary=config_json["vocab_size"],
        feed_forward=config_json.get("n_inner"),
        activation=_activation(config_json["activation_function"]),
        normalization_epsilon=config_json["layer_norm_epsilon"],
        tied_output=tied,
        dropout=config_json["resid_pdrop"],
        attention_dropout=config_json["attn_pdrop"],
        embedding_dropout=config_json["embd_pdrop"],
    )

    def translate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        bare = {name.removeprefix("transformer."): value for name, value in tensors.items()}
        ignored = r"h\.\d+\.attn\.(masked_)?bias" + (r"|lm_head\.weight" if tied else "")
        names = {pattern: name for pattern, name in _GPT2_NAMES.items() if not (tied and name == "output.weight")}
        return {
            name: value.t() if name.startswith("blocks.") and value.dim() == 2 else value
            for name, value in _renamed(bare, names, ignored).items()
        }

    return config, translate


_BERT_NAMES = {
    r"embeddings\.word_embeddings\.weight": "embedding.weight",
    r"embeddings\.position_embeddings\.weight": "position.content.table",
    r"embeddings\.token_type_embeddings\.weight": "segments.weight",
    r"embeddings\.LayerNorm\.(weight|bias)": "embedding_norm.{0}",
    r"encoder\.layer\.(\d+)\.attention\.self\.(query|key|value)\.(weight|bias)": "{1}.{0}.{2}",
    r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(weight|bias)": "blocks.{0}.attention.out.{1}",
    r"encoder\.layer\.(\d+)\.attention\.output\.LayerNorm\.(weight|bias)": "blocks.{0}.attention_norm.{1}",
    r"encoder\.layer\.(\d+)\.intermediate\.dense\.(weight|bias)": "blocks.{0}.feed_forward.up.{1}",
    r"encoder\.layer\.(\d+)\.output\.dense\.(weight|bias)": "blocks.{0}.feed_forward.out.{1}",
    r"encoder\.layer\.(\d+)\.output\.LayerNorm\.(weight|bias)": "blocks.{0}.feed_forward_norm.{1}",
}
_BERT_OUTPUTS = {
    "tokens": {
        r"cls\.predictions\.bias": "output.bias",
        r"cls\.predictions\.transform\.dense\.(weight|bias)": "output.transform.{0}",
        r"cls\.predictions\.transform\.LayerNorm\.(weight|bias)": "output.norm.{0}",
    },
    "first": {
        r"pooler\.dense\.(weight|bias)": "output.transform.{0}",
        r"classifier\.(weight|bias)": "output.linear.{0}",
    },
    "none": {r"classifier\.(weight|bias)": "output.linear.{0}"},
}
_BERT_HEADS = {
    "BertForMaskedLM": "tokens",
    "BertForPreTraining": "tokens",
    "BertForSequenceClassification": "first",
    "BertForTokenClassification": "none",
}


def _bert(
    config_json: dict[str, Any], architecture: str, weights: dict[str, Tensor]
) -> tuple[TransformerConfig, Translate]:
    """Return the config of a BERT encoder with the architecture's output layer, and what renames its tensors."""
    _only(architecture, *_BERT_HEADS)
    _refuse(config_json, position_embedding_type="absolute", is_decoder=False, tie_word_embeddings=True)
    head = _BERT_HEADS[architecture]
    classes = None if head == "tokens" else weights["classifier.weight"].shape[0]
    config = TransformerConfig(
        kind="encoder",
        layers=config_json["num_hidden_layers"],
        width=config_json["hidden_size"],
        heads=config_json["num_attention_heads"],
        context=config_json["max_position_embeddings"],
        vocabulary=config_json["vocab_size"],
        segments=config_json["type_vocab_size"],
        feed_forward=config_json["intermediate_size"],
        activation=_activation(config_json["hidden_act"]),
        position="learned-table",
        norm_placement="post",
        normalization_epsilon=config_json["layer_norm_eps"],
        embedding_norm=True,
        embedding_scale=False,
        bias=True,
        dropout=config_json["hidden_dropout_prob"],
        attention_dropout=config_json["attention_probs_dropout_prob"],
        embedding_dropout=config_json["hidden_dropout_prob"],
        classes=classes,
        pooling=None if head == "tokens" else head,
        output_transform=head != "none",
    )

    def translate(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        bare = {name.removeprefix("bert."): value for name, value in tensors.items()}
        bare = {re.sub("gamma$", "weight", re.sub("beta$", "bias", name)): value for name, value in bare.items()}
        ignored = r"embeddings\.position_ids|cls\.seq_relationship\..*|cls\.predictions\.decoder\..*|pooler\..*"
        renamed = _renamed(bare, _BERT_NAMES | _BERT_OUTPUTS[head], ignored)
        for layer in range(config.layers):
            for kind in ("weight", "bias"):
                parts = [renamed.pop(f"{part}.{layer}.{kind}") for part in ("query", "key", "value")]
                renamed[f"blocks.{layer}.attention.queries_keys_values.{kind}"] = torch.cat(parts)
        return renamed

    return config, translate


_FAMILIES = {"gpt2": _gpt2, "bert": _bert}


def _activation(name: str) -> str:
    if name not in _ACTIVATION_NAMES:
        raise unknown_name("activation", name, _ACTIVATION_NAMES)
    return _ACTIVATION_NAMES[name]


def _only(architecture: str, *known: str) -> None:
    if architecture not in known:
        raise InputError(f"the checkpoint is a {architecture}, and only {', '.join(known)} can be loaded.")


def _refuse(config_json: dict[str, Any], **computed: object) -> None:
    """Raise InputError if config.json has another value for one of the keys than the one that is computed here."""
    for key, value in computed.items():
        if config_json.get(key, value) != value:
            raise InputError(
                f"the checkpoint's config says {key} = {config_json[key]!r}, and only {value!r} is computed here."
            )
