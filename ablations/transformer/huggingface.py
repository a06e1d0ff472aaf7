"""The one call that loads a checkpoint folder of GPT-2 or BERT; the package `transformers` is not needed."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions.position_absolute import LearnedTable
from trans4init.ablations.settings.base import ValidationError
from trans4init.ablations.settings.error_sentence import sentence
from trans4init.ablations.transformer.checkpoints.bert import BERT_CLASSES, bert, bert_name
from trans4init.ablations.transformer.checkpoints.config_json import ConfigJson
from trans4init.ablations.transformer.checkpoints.gpt2 import GPT2_CLASSES, gpt2, gpt2_name
from trans4init.ablations.transformer.checkpoints.tensors import Layout, read_tensors, renamed, translated
from trans4init.ablations.transformer.model import Transformer, TransformerConfig

__all__ = ["load_pretrained"]


class _Family(NamedTuple):
    """Says how the checkpoints of a family are read."""

    classes: Collection[str]
    tensor_name: Callable[[str], str]
    config_and_layout: Callable[[ConfigJson, str | None, dict[str, Tensor]], tuple[TransformerConfig, Layout]]


_FAMILIES = {"gpt2": _Family(GPT2_CLASSES, gpt2_name, gpt2), "bert": _Family(BERT_CLASSES, bert_name, bert)}


def load_pretrained(folder: Path | str) -> Transformer:
    """Load the model in a checkpoint folder of GPT-2 or BERT, in evaluation mode and float32; its slots take any arm.

    The folder holds config.json and model.safetensors, or the files that model.safetensors.index.json names. GPT-2: a
    decoder. BERT: an encoder that gives logits of tokens (BertForMaskedLM, BertForPreTraining), of classes
    (BertForSequenceClassification) or of classes per token (BertForTokenClassification). Logits are those of
    `transformers` to 1e-4, and keys that config.json leaves out have its defaults.

    Every key of config.json and every tensor is used, or known to make no difference to these logits: buffers that are
    computed from the sizes (position_ids, token_type_ids, GPT-2's attn.bias and attn.masked_bias), BERT's pooler and
    next-sentence output beside logits of tokens, and its cls.predictions.bias beside a bias of the decoder. Raises
    InputError, by name, for any other, for what is missing, and for what these classes don't compute.
    """
    folder = Path(folder)
    config_json = ConfigJson(folder / "config.json")
    model_type = config_json.model_type()
    if model_type not in _FAMILIES:
        raise InputError(
            f"{folder} holds a {model_type}, and load_pretrained reads {' and '.join(_FAMILIES)} alone; in a model of "
            f"another family, put a Slot (trans4init.ablations.slots.slot) where it calls the function in question: "
            f"apply_arm takes any module that has one."
        )
    family = _FAMILIES[model_type]
    class_name = config_json.class_name(family.classes)
    tensors = renamed(read_tensors(folder, class_name or "AutoModelForPreTraining"), family.tensor_name)
    try:
        config, layout = family.config_and_layout(config_json, class_name, tensors)
    except ValidationError as error:
        raise InputError(sentence(error, TransformerConfig, str(config_json.path))) from None
    model = Transformer(config).eval()
    weights = translated(tensors, layout, model.state_dict(), folder)
    model.load_state_dict(weights)
    model.position.function = _LoadedTable(weights["position.content.table"])
    return model


class _LoadedTable(LearnedTable):
    """Starts a position function's table from trained positions: arm `free-table` starts from the checkpoint's."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows

    def initial_table(self, inputs: Tensor, generator: torch.Generator, **shape: int) -> Tensor:
        """Return the trained rows, [N, width]."""
        return self._rows[inputs.long()].to(inputs)
