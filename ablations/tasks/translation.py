"""Task `translation`: translate sentences from one language into another; measured by BLEU."""

from typing import Any

import numpy as np
import torch

from trans4init.ablations.data.bpe import learn_bpe
from trans4init.ablations.data.codec import BpeCodec
from trans4init.ablations.data.config import Kind, Split
from trans4init.ablations.data.pairs import END, Pairs
from trans4init.ablations.data.translation import Sentences, TranslationConfig, sentence_pairs
from trans4init.ablations.tasks.base import TASKS
from trans4init.ablations.tasks.pairs import Decode, Prompts, StoredPairTask, decode_greedily, summed, vocabulary
from trans4init.ablations.transformer import Transformer, beam_search
from trans4init.reports.records.metrics import BLEU, EXACT_MATCH, GENERATED_EXACT_MATCH, VALIDATION_LOSS
from trans4init.reports.records.schema import Measurement

__all__ = ["Translation", "bleu"]

_SHORTEST_LIMIT = 10
"""Tokens that a translation may have besides two for each token of its source, so that short ones have room."""


@TASKS.register
class Translation(StoredPairTask):
    """Translate sentences, spelled in byte pairs that both languages share."""

    name = "translation"

    def __init__(self, config: TranslationConfig, context: int, device: torch.device, kind: Kind = "decoder") -> None:
        self.check_kind(config, kind)
        self.config, self.context, self.device, self.kind = config, context, device, kind
        self.fingerprint = config.fingerprint()
        self._sentences = sentence_pairs(config)
        self._codec = learn_bpe([text for pair in self._sentences["training"] for text in pair], config.tokens)
        encoded = {part: self._encoded(rows) for part, rows in self._sentences.items()}
        self.training = encoded["training"]
        self._held_out: dict[Split, Pairs] = {"tune": encoded["tune"], "evaluate": encoded["evaluate"]}
        self.check_lengths(self.training)

    @property
    def model_fields(self) -> dict[str, Any]:
        """The number of tokens: the byte pairs of the training split, and the special ones."""
        return vocabulary(self._codec.size)

    @property
    def codec(self) -> BpeCodec:
        """The byte pairs, learned from both languages of the training split."""
        return self._codec

    @property
    def notes(self) -> dict[str, str]:
        """BLEU's signature, which says how it was computed."""
        return {"bleu": bleu_signature()}

    def held_out(self, split: Split) -> Pairs:
        """Return all sentences of the split."""
        return self._held_out[split]

    def evaluate(self, model: Transformer, split: Split, step: int, *, final: bool) -> list[Measurement]:
        """Measure loss, exact matches and BLEU.

        The final evaluation decodes all sentences with the settings' beam; those before decode a few, greedily.
        """
        pairs, sentences = self._held_out[split], self._sentences[split]
        teacher = summed([self.taught(model, pairs)])
        measurements = [Measurement(VALIDATION_LOSS, teacher.loss, step), Measurement(EXACT_MATCH, teacher.exact, step)]
        count = len(sentences) if final else self.config.interim_sentences
        decode: Decode = self._beam if final and self.config.beam > 1 else decode_greedily
        made = self.translated(model, pairs[:count], decode)
        right = [target for _, target in sentences[:count]]
        measurements.append(Measurement(BLEU, bleu(made, right), step))
        measurements.append(
            Measurement(GENERATED_EXACT_MATCH, float(np.mean([a == b for a, b in zip(made, right, strict=True)])), step)
        )
        return measurements

    def translated(self, model: Transformer, pairs: Pairs, decode: Decode = decode_greedily) -> list[str]:
        """Return the model's translations."""
        made = self.generated(model, pairs, decode)
        return [self._codec.decode([token for token in tokens if token >= 0]) for tokens in made]

    def most_tokens(self, pairs: Pairs) -> int:
        """Return the limit by the sources alone: one by the right translations' lengths would flatter BLEU."""
        return 2 * pairs.longest()[0] + _SHORTEST_LIMIT

    def _beam(self, model: Transformer, given: Prompts, maximum: int) -> list[list[int]]:
        beam, alpha = self.config.beam, self.config.length_penalty
        return beam_search(
            model, given.tokens, maximum=maximum, end=END, beam=beam, alpha=alpha, **given.rest()
        ).sequences(END)

    def _encoded(self, rows: Sentences) -> Pairs:
        encode = self._codec.encode
        return Pairs([encode(source) for source, _ in rows], [encode(target) for _, target in rows])


def bleu(made: list[str], right: list[str]) -> float:
    """Return the corpus BLEU of Post 2018, 0 to 100, with sacrebleu's default tokens and smoothing."""
    from sacrebleu.metrics.bleu import BLEU as SacreBleu  # noqa: N811  BLEU is our metric here

    return float(SacreBleu().corpus_score(made, [right]).score)


def bleu_signature() -> str:
    """Return sacrebleu's signature of how that BLEU was computed."""
    from sacrebleu.metrics.bleu import BLEU as SacreBleu  # noqa: N811

    score = SacreBleu()
    score.corpus_score(["a"], [["a"]])
    return str(score.get_signature())
