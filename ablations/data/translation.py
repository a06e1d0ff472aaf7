"""Sentence pairs of two languages: Multi30k, or numbers in words, which need no download. Imports no torch."""

import gzip
import hashlib
import json
from functools import cache
from typing import Annotated, ClassVar, Literal

import numpy as np

from trans4init.ablations.data.config import Kind, TaskConfig
from trans4init.ablations.data.datasets import DATASETS, fetch
from trans4init.ablations.seeding import derived_seed
from trans4init.ablations.settings.base import Field, model_validator
from trans4init.reports.records.metrics import BLEU, EXACT_MATCH, GENERATED_EXACT_MATCH, VALIDATION_LOSS
from trans4init.reports.records.schema import Metric

__all__ = ["NUMBER_LANGUAGES", "TranslationConfig", "sentence_pairs"]

NUMBER_LANGUAGES = ("de", "en", "es", "fr", "it", "nl")
"""The languages of number words."""
_MULTI30K_LANGUAGES = ("de", "en")
_PARTS = {"training": "train", "tune": "val", "evaluate": "test_2016_flickr"}

Sentences = list[tuple[str, str]]


class TranslationConfig(TaskConfig):
    """Names the data of task `translation`."""

    kinds: ClassVar[tuple[Kind, ...]] = ("encoder-decoder", "decoder")

    name: Literal["translation"] = "translation"
    source: Literal["number-words", "multi30k"] = "number-words"
    """Numbers written in words, generated; or the captions of Multi30k, downloaded once."""
    from_language: str = "de"
    """The language that is translated, as a code of two letters."""
    to_language: str = "en"
    """The language that it is translated to, as a code of two letters."""
    tokens: Annotated[int, Field(ge=300)] = 400
    """Number of byte-pair tokens, learned from both languages of the training split together."""
    numbers: Annotated[int, Field(ge=100)] = 4000
    """Number of trained pairs of `number-words`, drawn from 0 to 999,999."""
    held_out: Annotated[int, Field(ge=10)] = 300
    """Number of pairs in each other split of `number-words`."""
    interim_sentences: Annotated[int, Field(ge=1)] = 100
    """Number of sentences that BLEU is measured on before the final evaluation, which takes all."""
    beam: Annotated[int, Field(ge=1)] = 1
    """Number of hypotheses of the beam search in the final evaluation; 1 decodes greedily."""
    length_penalty: Annotated[float, Field(ge=0)] = 0.6
    """α of Wu et al. 2016, equation 14; used with a beam of 2 or more."""

    @model_validator(mode="after")
    def _languages_are_there(self) -> "TranslationConfig":
        known = _MULTI30K_LANGUAGES if self.source == "multi30k" else NUMBER_LANGUAGES
        for language in (self.from_language, self.to_language):
            if language not in known:
                raise ValueError(f"{self.source} has the languages {', '.join(known)}, not {language!r}")
        if self.from_language == self.to_language:
            raise ValueError(f"from_language and to_language are both {self.to_language!r}")
        return self

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of a final evaluation."""
        return (VALIDATION_LOSS, BLEU, EXACT_MATCH, GENERATED_EXACT_MATCH)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the sentences."""
        return hashlib.sha256(json.dumps(sentence_pairs(self)).encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.source} {self.from_language}→{self.to_language}, {self.tokens} tokens"


@cache
def sentence_pairs(config: TranslationConfig) -> dict[str, Sentences]:
    """Return the pairs of `training`, `tune` and `evaluate`; raises InputError as `fetch` does."""
    languages = (config.from_language, config.to_language)
    if config.source == "multi30k":
        return {part: _multi30k(name, *languages) for part, name in _PARTS.items()}
    from num2words import num2words  # only number words need it

    generator = np.random.default_rng(derived_seed(0, "number words"))
    total = config.numbers + 2 * config.held_out
    digits = generator.integers(1, 7, size=4 * total)  # every number of digits alike, not every number
    numbers = list(dict.fromkeys((generator.random(4 * total) * 10.0**digits).astype(int).tolist()))[:total]
    pairs = [(num2words(number, lang=languages[0]), num2words(number, lang=languages[1])) for number in numbers]
    tune, evaluate = pairs[: config.held_out], pairs[config.held_out : 2 * config.held_out]
    return {"training": pairs[2 * config.held_out :], "tune": tune, "evaluate": evaluate}


def _multi30k(name: str, *languages: str) -> Sentences:
    texts = [
        gzip.decompress(fetch(DATASETS[f"multi30k/{name}.{language}.gz"]).read_bytes()).decode().splitlines()
        for language in languages
    ]
    return [(source.strip(), target.strip()) for source, target in zip(*texts, strict=True)]
