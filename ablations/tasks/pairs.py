"""The base of tasks that turn one sequence into another, for encoder-decoders and for decoders."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from trans4init.ablations.data.buckets import epochs
from trans4init.ablations.data.config import Kind, Split
from trans4init.ablations.data.pairs import BEGIN, END, PADDING, SEPARATOR, SPECIALS, Pairs
from trans4init.ablations.errors import InputError
from trans4init.ablations.settings.training import BatchUnit
from trans4init.ablations.slots.contents import Content, OutsideDomainError, TrainableTable
from trans4init.ablations.tasks.base import IGNORED, Batch, Task, evaluating
from trans4init.ablations.transformer import Transformer, greedy
from trans4init.reports.records.metrics import EXACT_MATCH, GENERATED_EXACT_MATCH, VALIDATION_LOSS, of_group
from trans4init.reports.records.schema import Measurement

__all__ = ["Decode", "PairTask", "StoredPairTask", "Teacher", "pairs_as_batch", "prompts", "readable"]

_TOKENS_AT_ONCE = 8192
"""Tokens of one batch of an evaluation, padding included: more take more memory."""
_EXTRA_TOKENS = 2
"""Tokens that a generated sequence may have beyond the longest right one: enough to be seen as wrong."""


class Prompts(NamedTuple):
    """Holds the inputs from which a model writes: tokens [B, L], their lengths [B] and an encoder's source [B, S]."""

    tokens: Tensor
    lengths: Tensor
    source: Tensor | None
    source_lengths: Tensor | None

    def rest(self) -> dict[str, Tensor | None]:
        """Return all but the tokens, by the names that decoding functions use."""
        return {"lengths": self.lengths, "source": self.source, "source_lengths": self.source_lengths}


Decode = Callable[[Transformer, Prompts, int], list[list[int]]]
"""Generates, from prompts and a maximum number of tokens, the tokens that follow, without END."""


@dataclass(frozen=True)
class Teacher:
    """Holds the scores of a model that is given the right tokens before each token that it predicts."""

    loss: float
    """Nats per token."""
    exact: float
    """Share of examples with every token right."""


def padded(rows: Sequence[Sequence[int]], value: int = PADDING) -> tuple[Tensor, Tensor]:
    """Return rows as one tensor [B, longest], filled up with `value` at their ends; and their lengths [B]."""
    lengths = torch.tensor([len(row) for row in rows])
    tensor = torch.full((len(rows), int(lengths.max())), value)
    for place, row in enumerate(rows):
        tensor[place, : len(row)] = torch.tensor(row, dtype=torch.int64)
    return tensor, lengths


def pairs_as_batch(pairs: Pairs, kind: Kind) -> Batch:
    """Return pairs as a batch with the special tokens around them; only targets are predicted.

    An encoder-decoder reads source and target apart. A decoder reads source, separator and target as one sequence.
    """
    sources, targets = (
        [[token + SPECIALS for token in row] for row in rows] for rows in (pairs.sources, pairs.targets)
    )
    if kind == "encoder-decoder":
        source, source_lengths = padded([[*row, END] for row in sources])
        inputs, lengths = padded([[BEGIN, *row] for row in targets])
        wanted, _ = padded([[*row, END] for row in targets], IGNORED)
        return Batch(inputs, wanted, lengths, source, source_lengths)
    joined = [([*source, SEPARATOR, *target], [*target, END]) for source, target in zip(sources, targets, strict=True)]
    inputs, lengths = padded([given for given, _ in joined])
    wanted, _ = padded([[IGNORED] * (len(given) - len(rest)) + rest for given, rest in joined], IGNORED)
    return Batch(inputs, wanted, lengths)


def prompts(sources: Sequence[Sequence[int]], kind: Kind, device: torch.device) -> Prompts:
    """Return what a model of that kind is given to generate targets from."""
    numbered = [[token + SPECIALS for token in row] for row in sources]
    if kind == "encoder-decoder":
        source, source_lengths = padded([[*row, END] for row in numbered])
        tokens, lengths = padded([[BEGIN] for _ in numbered])
        return Prompts(tokens.to(device), lengths.to(device), source.to(device), source_lengths.to(device))
    tokens, lengths = padded([[*row, SEPARATOR] for row in numbered])
    return Prompts(tokens.to(device), lengths.to(device), None, None)


def readable(model: Transformer, given: Prompts, maximum: int) -> int:
    """Return how many tokens, at most `maximum`, the model has positions for: it reads all but the last of them.

    Raises OutsideDomainError if it has no positions for the prompts.
    """
    content = model.position.content
    if not _ends(content):
        return maximum
    left = int(content.domain.high) + 2 - given.tokens.shape[1]
    if left < 1:
        raise OutsideDomainError(f"the table covers {content.domain} only")
    return min(maximum, left)


def _ends(content: Content) -> TypeGuard[TrainableTable]:
    """Return whether the positions are a table that ends."""
    return isinstance(content, TrainableTable) and not content.function.open_ended()


def decode_greedily(model: Transformer, given: Prompts, maximum: int) -> list[list[int]]:
    """Generate the likeliest token at each position."""
    return greedy(model, given.tokens, maximum=maximum, end=END, **given.rest()).sequences(END)


class PairTask(Task):
    """Predict a target sequence from a source. Both are numbered by one codec, whose tokens follow the special ones."""

    judged = VALIDATION_LOSS
    counts_tokens = True
    kind: Kind
    context: int

    @abstractmethod
    def held_out(self, split: Split) -> Pairs:
        """Return the pairs that every evaluation measures."""

    def groups(self, split: Split) -> Iterator[tuple[tuple[str, ...], Pairs]]:
        """Yield further pairs that the final evaluation measures, with the names of the groups that they count in."""
        yield from ()

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the logits of every target, [B, L, V]."""
        options: dict[str, Tensor | None] = {"lengths": batch.lengths}
        if batch.source is not None:
            options |= {"source": batch.source, "source_lengths": batch.source_lengths}
        result: Tensor = model(batch.inputs, **options)
        return result

    def check_lengths(self, pairs: Pairs) -> None:
        """Raise InputError if a pair is longer than the model's context."""
        sources, targets = pairs.longest()
        needed = max(sources, targets) + 1 if self.kind == "encoder-decoder" else sources + targets + 1
        if needed > self.context:
            raise InputError(
                f"task {self.name} has sequences of {needed} tokens: [model] context must be {needed} or more."
            )

    def evaluate(self, model: Transformer, split: Split, step: int, *, final: bool) -> list[Measurement]:
        """Measure loss and exact match given the right tokens; finally also of generated sequences, and by group.

        Lengths for which the model has no positions are left out.
        """
        pairs = self.held_out(split)
        teacher = summed([self.taught(model, pairs)])
        measurements = [Measurement(VALIDATION_LOSS, teacher.loss, step), Measurement(EXACT_MATCH, teacher.exact, step)]
        if not final:
            return measurements
        generated_share = float(np.mean(self.generated_exactly(model, pairs)))
        measurements.append(Measurement(GENERATED_EXACT_MATCH, generated_share, step))
        scores: dict[str, list[tuple[NDArray[np.float64], NDArray[np.bool_]]]] = {}
        for names, group in self.groups(split):
            try:
                taught, generated = self.taught(model, group), self.generated_exactly(model, group)
            except OutsideDomainError:
                continue
            for name in names:
                scores.setdefault(name, []).append((taught, generated))
        for name, parts in scores.items():
            exact = summed([taught for taught, _ in parts]).exact
            generated = np.concatenate([right for _, right in parts])
            measurements.append(Measurement(of_group(EXACT_MATCH, name), exact, step))
            measurements.append(Measurement(of_group(GENERATED_EXACT_MATCH, name), float(generated.mean()), step))
        return measurements

    def taught(self, model: Transformer, pairs: Pairs) -> NDArray[np.float64]:
        """Return, for each pair, its summed loss, its number of tokens and whether all were right, [N, 3].

        Before each token that the model predicts it is given the right ones.
        """
        rows = np.empty((len(pairs), 3))
        with evaluating(model):
            for chosen in self._in_batches(pairs):
                batch = pairs_as_batch(pairs.picked(chosen), self.kind).to(self.device)
                logits = self.logits(model, batch).float()
                losses = F.cross_entropy(logits.movedim(-1, 1), batch.targets, ignore_index=IGNORED, reduction="none")
                counted = batch.targets != IGNORED
                right = ((logits.argmax(-1) == batch.targets) | ~counted).all(-1)
                measured = torch.stack([losses.sum(-1), counted.sum(-1), right], dim=1)
                rows[chosen] = measured.double().cpu().numpy()
        return rows

    def generated(self, model: Transformer, pairs: Pairs, decode: Decode = decode_greedily) -> list[list[int]]:
        """Return what the model generates from the sources, as the codec numbers it."""
        results: list[list[int]] = [[] for _ in pairs.sources]
        with evaluating(model):
            for chosen in self._in_batches(pairs, apart=self.kind == "decoder" and _ends(model.position.content)):
                picked = pairs.picked(chosen)
                given = prompts(picked.sources, self.kind, self.device)
                made = decode(model, given, readable(model, given, self.most_tokens(picked)))
                for place, tokens in zip(chosen, made, strict=True):
                    results[place] = without_specials(tokens)
        return results

    def most_tokens(self, pairs: Pairs) -> int:
        """Return how many tokens are generated at most: a few more than the longest target has."""
        return pairs.longest()[1] + 1 + _EXTRA_TOKENS

    def generated_exactly(self, model: Transformer, pairs: Pairs) -> NDArray[np.bool_]:
        """Return which sources the model turns into exactly their target, [N]."""
        made = self.generated(model, pairs)
        return np.array([tokens == target for tokens, target in zip(made, pairs.targets, strict=True)])

    def _in_batches(self, pairs: Pairs, *, apart: bool = False) -> Iterator[NDArray[np.int64]]:
        """Yield batches of rows of similar length, of at most `_TOKENS_AT_ONCE` tokens.

        apart: whether a batch has sources of one length only. Where positions end, a longer source in the batch would
        leave a shorter one less room to generate.
        """
        sources = np.array(list(map(len, pairs.sources)))
        lengths = sources + np.array(list(map(len, pairs.targets))) + 2
        groups = (
            [np.flatnonzero(sources == length) for length in np.unique(sources)] if apart else [np.arange(len(sources))]
        )
        for rows in groups:
            order = rows[np.argsort(lengths[rows], kind="stable")]
            first = 0
            while first < len(order):
                count = 1
                while first + count < len(order) and lengths[order[first + count]] * (count + 1) <= _TOKENS_AT_ONCE:
                    count += 1
                yield order[first : first + count]
                first += count


class StoredPairTask(PairTask):
    """Serves as the base of pair tasks whose training pairs are a fixed set."""

    training: Pairs

    def plan(self, seed: int, size: int, split: Split, unit: BatchUnit) -> Iterator[NDArray[np.int64]]:
        """Yield rows of the training pairs, each once an epoch."""
        sources, targets = (np.array(list(map(len, rows))) for rows in (self.training.sources, self.training.targets))
        lengths = np.maximum(sources, targets) + 1 if self.kind == "encoder-decoder" else sources + targets + 1
        return epochs(seed, lengths, size, tokens=unit == "tokens")

    def collate(self, key: NDArray[np.int64]) -> Batch:
        """Return the batch of those rows, padded."""
        return pairs_as_batch(self.training.picked(key), self.kind)


def summed(rows: Sequence[NDArray[np.float64]]) -> Teacher:
    """Return the mean scores over all pairs that were measured."""
    loss, tokens, _ = (together := np.concatenate(rows)).sum(axis=0)
    return Teacher(float(loss / tokens), float(together[:, 2].mean()))


def without_specials(tokens: Sequence[int]) -> list[int]:
    """Return tokens as the codec numbers them; a special token becomes −1, so that it is never right."""
    return [token - SPECIALS if token >= SPECIALS else -1 for token in tokens]


def vocabulary(codec_size: int) -> dict[str, Any]:
    """Return the model's number of tokens."""
    return {"vocabulary": codec_size + SPECIALS}
