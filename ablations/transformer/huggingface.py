"""GPT-2 and BERT from a Hugging Face checkpoint folder, as the same classes as every other model here.

The folder holds `config.json` and `model.safetensors`; the package `transformers` is not needed.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from trans4init.ablations.errors import InputError, unknown_name
from trans4init.ablations.functions.position_absolute import LearnedTable
from trans4init.ablations.settings.base import ValidationError
from trans4init.ablations.settings.error_sentence import sentence
from trans4init.ablations.transformer.model import Transformer, TransformerConfig

__all__ = ["load_pretrained"]

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu-tanh",
    "gelu_pytorch_tanh": "gelu-tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


def load_pretrained(folder: Path | str) -> Transformer:
    """The model in a checkpoint folder of GPT-2 or BERT, in evaluation, float32; its slots take any arm.

    GPT-2: a decoder. BERT: an encoder that gives logits of tokens (BertForMaskedLM, BertForPreTraining), of classes
    (BertForSequenceClassification) or of classes per token (BertForTokenClassification). Logits are those of
    `transformers` to 1e-4. Raises InputError for a folder that isn't one, and for what these classes don't compute.
    """
    folder = Path(folder)
    try:
        card: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors")
        family, [architecture, *_] = card["model_type"], card["architectures"]
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise InputError(
            f"{folder} is no Hugging Face checkpoint with config.json and model.safetensors: {error}"
        ) from None
    if family not in _FAMILIES:
        raise unknown_name("model_type", str(family), _FAMILIES)
    try:
        config, translate = _FAMILIES[family](card, architecture, weights)
        found = translate(dict(weights))
    except KeyError as error:
        raise InputError(f"{folder} lacks {error} for a {architecture}.") from None
    except ValidationError as error:
        raise InputError(sentence(error, TransformerConfig, str(folder / "config.json"))) from None
    model = Transformer(config).eval()
    _fill(model, {name: value.float() for name, value in found.items()}, str(folder))
    model.position.function = _LoadedTable(found["position.content.table"])
    return model


class _LoadedTable(LearnedTable):
    """Positions as they were trained elsewhere: arm `free-table` starts from them."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows

    def initial_table(self, inputs: Tensor, generator: torch.Generator, **shape: int) -> Tensor:
        """The trained rows, [N, width]."""
        return self._rows[inputs.long()].to(inputs)


def _fill(model: Transformer, found: dict[str, Tensor], folder: str) -> None:
    """Copy the tensors into the model's; raises InputError unless they are the same, by name and shape."""
    own = model.state_dict()
    missing, beyond = sorted(set(own) - set(found)), sorted(set(found) - set(own))
    if missing or beyond:
        raise InputError(
            f"{folder} lacks {', '.join(missing) or 'nothing'} and has {', '.join(beyond) or 'nothing'} more."
        )
    for name, value in found.items():
        if own[name].shape != value.shape:
            raise InputError(f"{folder}: {name} is {list(value.shape)}, and the config says {list(own[name].shape)}.")
    model.load_state_dict(found)


Translate = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def _renamed(weights: dict[str, Tensor], names: dict[str, str], ignored: str = "$^") -> dict[str, Tensor]:
    """Tensors by our names: patterns of theirs, matched whole, with the layer's number for {0}."""
    found: dict[str, Tensor] = {}
    for theirs, value in weights.items():
        for pattern, ours in names.items():
            match = re.fullmatch(pattern, theirs)
            if match:
                found[ours.format(*match.groups())] = value
                break
        else:
            if not re.fullmatch(ignored, theirs):
                found[theirs] = value  # left for the complaint about what is more than needed
    return found


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


def _gpt2(card: dict[str, Any], architecture: str, weights: dict[str, Tensor]) -> tuple[TransformerConfig, Translate]:
    """The decoder of a GPT-2 config. Its `Conv1D` weights are [in, out]."""
    _only(architecture, "GPT2LMHeadModel", "GPT2Model")
    _refuse(card, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    tied = card.get("tie_word_embeddings", True)
    config = TransformerConfig.preset(
        "gpt2-small",
        layers=card["n_layer"],
        width=card["n_embd"],
        heads=card["n_head"],
        context=card["n_positions"],
        vocabulary=card["vocab_size"],
        feed_forward=card.get("n_inner"),
        activation=_activation(card["activation_function"]),
        normalization_epsilon=card["layer_norm_epsilon"],
        tied_output=tied,
        dropout=card["resid_pdrop"],
        attention_dropout=card["attn_pdrop"],
        embedding_dropout=card["embd_pdrop"],
    )

    def translate(given: dict[str, Tensor]) -> dict[str, Tensor]:
        bare = {name.removeprefix("transformer."): value for name, value in given.items()}
        ignored = r"h\.\d+\.attn\.(masked_)?bias" + (r"|lm_head\.weight" if tied else "")
        names = {pattern: ours for pattern, ours in _GPT2_NAMES.items() if not (tied and ours == "output.weight")}
        found = _renamed(bare, names, ignored)
        return {
            name: value.t() if name.startswith("blocks.") and value.dim() == 2 else value
            for name, value in found.items()
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


def _bert(card: dict[str, Any], architecture: str, weights: dict[str, Tensor]) -> tuple[TransformerConfig, Translate]:
    """The encoder of a BERT config, with the output layer that the architecture names."""
    _only(architecture, *_BERT_HEADS)
    _refuse(card, position_embedding_type="absolute", is_decoder=False, tie_word_embeddings=True)
    head = _BERT_HEADS[architecture]
    classes = None if head == "tokens" else weights["classifier.weight"].shape[0]
    config = TransformerConfig(
        kind="encoder",
        layers=card["num_hidden_layers"],
        width=card["hidden_size"],
        heads=card["num_attention_heads"],
        context=card["max_position_embeddings"],
        vocabulary=card["vocab_size"],
        segments=card["type_vocab_size"],
        feed_forward=card["intermediate_size"],
        activation=_activation(card["hidden_act"]),
        position="learned-table",
        norm_placement="post",
        normalization_epsilon=card["layer_norm_eps"],
        embedding_norm=True,
        embedding_scale=False,
        bias=True,
        dropout=card["hidden_dropout_prob"],
        attention_dropout=card["attention_probs_dropout_prob"],
        embedding_dropout=card["hidden_dropout_prob"],
        classes=classes,
        pooling=None if head == "tokens" else head,
        output_transform=head != "none",
    )

    def translate(given: dict[str, Tensor]) -> dict[str, Tensor]:
        bare = {name.removeprefix("bert."): value for name, value in given.items()}
        bare = {re.sub("gamma$", "weight", re.sub("beta$", "bias", name)): value for name, value in bare.items()}
        ignored = r"embeddings\.position_ids|cls\.seq_relationship\..*|cls\.predictions\.decoder\..*|pooler\..*"
        found = _renamed(bare, _BERT_NAMES | _BERT_OUTPUTS[head], ignored)
        for layer in range(config.layers):
            for kind in ("weight", "bias"):
                parts = [found.pop(f"{part}.{layer}.{kind}") for part in ("query", "key", "value")]
                found[f"blocks.{layer}.attention.queries_keys_values.{kind}"] = torch.cat(parts)
        return found

    return config, translate


_FAMILIES = {"gpt2": _gpt2, "bert": _bert}


def _activation(name: str) -> str:
    if name not in _ACTIVATIONS:
        raise unknown_name("activation", name, _ACTIVATIONS)
    return _ACTIVATIONS[name]


def _only(architecture: str, *known: str) -> None:
    if architecture not in known:
        raise InputError(f"the checkpoint is a {architecture}; there are: {', '.join(known)}.")


def _refuse(card: dict[str, Any], **computed: object) -> None:
    """Raise InputError where the config asks for something else than what is computed."""
    for key, value in computed.items():
        if card.get(key, value) != value:
            raise InputError(
                f"the checkpoint's config says {key} = {card[key]!r}, and only {value!r} is computed here."
            )
