"""The config.json of a checkpoint, read key by key, so that a key that nothing reads can be refused by name."""

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NoReturn

from trans4init.ablations.errors import InputError

__all__ = ["ConfigJson"]

_WITHOUT_EFFECT = frozenset(
    {
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_commit_hash",
        "_name_or_path",
        "_num_labels",
        "attn_implementation",
        "chunk_size_feed_forward",
        "dtype",
        "finetuning_task",
        "gradient_checkpointing",
        "initializer_range",
        "label2id",
        "name_or_path",
        "output_attentions",
        "output_hidden_states",
        "output_past",
        "problem_type",
        "return_dict",
        "tf_legacy_loss",
        "tokenizer_class",
        "torch_dtype",
        "torchscript",
        "transformers.js_config",
        "transformers_version",
        "use_bfloat16",
        "bos_token_id",
        "decoder_start_token_id",
        "eos_token_id",
        "pad_token_id",
        "sep_token_id",
        "assistant_confidence_threshold",
        "assistant_lookbehind",
        "bad_words_ids",
        "begin_suppress_tokens",
        "diversity_penalty",
        "do_sample",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "encoder_repetition_penalty",
        "epsilon_cutoff",
        "eta_cutoff",
        "exponential_decay_length_penalty",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "length_penalty",
        "max_length",
        "min_length",
        "no_repeat_ngram_size",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_scores",
        "prefix",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict_in_generate",
        "suppress_tokens",
        "target_lookbehind",
        "task_specific_params",
        "temperature",
        "top_k",
        "top_p",
        "typical_p",
        "use_cache",
    }
)
"""The keys of every family that say where a checkpoint comes from, how it is stored or how text is generated with it,
and that logits don't depend on. Read by `ConfigJson.refuse_unread`, which refuses any other key that nothing read."""


class ConfigJson:
    """Reads a checkpoint's config.json; each method reads one key, with the default of transformers' config class.

    Where a family has its own name for a key that transformers also takes by a general name, `general` is that name.
    Raises InputError for a file that can't be read and for values of another kind.
    """

    def __init__(self, path: Path) -> None:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(
                f"{path.parent} is not a Hugging Face checkpoint with config.json and model.safetensors: {error}; "
                f"to fetch one, run `hf download NAME --local-dir FOLDER`."
            ) from None
        except ValueError as error:
            raise InputError(f"{path} can't be read as JSON: {error}.") from None
        if not isinstance(values, dict):
            raise InputError(f"{path} holds {json.dumps(values)[:40]}, and an object of keys and values is expected.")
        self.path = path
        self._values: dict[str, object] = values
        self._read: set[str] = set()

    def count(self, key: str, default: int, general: str | None = None) -> int:
        """Return a whole number from 1."""
        value = self._value(key, default, general)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self._refuse(key, value, "a whole number from 1 is expected")
        return value

    def optional_count(self, key: str) -> int | None:
        """Return a whole number from 1, or None."""
        return None if self._value(key, None) is None else self.count(key, 1)

    def share(self, key: str, default: float) -> float:
        """Return a number from 0 to below 1."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            self._refuse(key, value, "a number from 0 to below 1 is expected")
        return value

    def optional_share(self, key: str) -> float | None:
        """Return a number from 0 to below 1, or None."""
        return None if self._value(key, None) is None else self.share(key, 0.0)

    def positive(self, key: str, default: float) -> float:
        """Return a number above 0."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            self._refuse(key, value, "a number above 0 is expected")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            self._refuse(key, value, "true or false is expected")
        return value

    def choice(self, key: str, default: str, choices: Mapping[str, str]) -> str:
        """Return what `choices` has for the value."""
        value = self._value(key, default)
        if not isinstance(value, str) or value not in choices:
            self._refuse(key, value, f"only {', '.join(choices)} are computed here")
        return choices[value]

    def labels(self) -> int:
        """Return the number of classes: the entries of id2label, or else num_labels, or else 2."""
        count, names = self.count("num_labels", 2), self._value("id2label", None)
        if names is None:
            return count
        if not isinstance(names, dict) or not names:
            self._refuse("id2label", names, "an object with an entry for each class is expected")
        return len(names)

    def model_type(self) -> str:
        """Return the family's name; raise InputError if there is none."""
        value = self._value("model_type", None)
        if not isinstance(value, str):
            self._refuse("model_type", value, 'the family\'s name is expected, such as "gpt2"')
        return value

    def class_name(self, known: Collection[str]) -> str | None:
        """Return the class whose weights these are, one of `known`; None if the file names no class."""
        value = self._value("architectures", None)
        names = [value] if isinstance(value, str) else value or []
        if not isinstance(names, list) or len(names) > 1:
            self._refuse("architectures", value, "a list with the name of one class is expected")
        if names and (not isinstance(names[0], str) or names[0] not in known):
            self._refuse("architectures", value, f"only {', '.join(known)} can be loaded")
        return names[0] if names else None

    def expect(self, **computed: object) -> None:
        """Raise InputError if a key has another value than the one that is computed here."""
        for key, expected in computed.items():
            value = self._value(key, expected)
            if value != expected:
                self._refuse(key, value, f"only {json.dumps(expected)} is computed here")

    def refuse_unread(self, *without_effect: str) -> None:
        """Raise InputError for a key that nothing has read, unless it is null or known to have no effect on logits.

        without_effect: such keys of the family, besides those of all families.
        """
        harmless = _WITHOUT_EFFECT | set(without_effect) | self._read
        for key, value in self._values.items():
            if key not in harmless and value is not None:
                self._refuse(key, value, "nothing here reads that key: remove it if the logits don't depend on it")

    def _value(self, key: str, default: object, general: str | None = None) -> object:
        self._read |= {key, general or key}
        if general in self._values and self._values.get(key, self._values[general]) != self._values[general]:
            self._refuse(key, self._values[key], f"{general} is {json.dumps(self._values[general])}: remove one")
        return self._values.get(key, self._values.get(general or key, default))

    def _refuse(self, key: str, value: object, expected: str) -> NoReturn:
        shown = json.dumps(value)
        raise InputError(f"{self.path}: {key} is {shown if len(shown) < 80 else shown[:77] + '...'}, and {expected}.")
