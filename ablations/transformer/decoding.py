"""Greedy search, beam search and sampling from a model, each with the key/value cache.

B batch, L prompt length, Ls source length, N new tokens, K beam width, V vocabulary.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trans4init.ablations.errors import InputError
from trans4init.ablations.slots.contents import OutsideDomainError
from trans4init.ablations.transformer.kv_cache import KeyValueCache
from trans4init.ablations.transformer.model import Transformer

__all__ = ["Decoded", "beam_search", "greedy", "length_penalty", "sample"]


@dataclass(frozen=True)
class Decoded:
    """Holds the tokens that were decoded after each prompt."""

    tokens: Tensor
    """[B, N] int64; beyond a sequence's length it is padded with the end token, or 0 if there is no end token."""
    lengths: Tensor
    """[B] int64: the number of new tokens of each sequence, its end token included."""
    log_probability: Tensor
    """[B] float32, in nats: the model's log-probability of the new tokens."""

    def score(self, alpha: float = 0.0) -> Tensor:
        """Return the log-probability divided by the length penalty, [B]: beam search compares these."""
        return self.log_probability / length_penalty(self.lengths, alpha)

    def sequences(self, end: int | None = None) -> list[list[int]]:
        """Return the new tokens as lists, without the final token `end` if it is given."""
        rows = [row[:length] for row, length in zip(self.tokens.tolist(), self.lengths.tolist(), strict=True)]
        return [row[:-1] if row and row[-1] == end else row for row in rows]


def length_penalty(lengths: Tensor, alpha: float) -> Tensor:
    """Return ((5 + length) / 6)^alpha, [...] to [...] float32 (Wu et al. 2016, Google's NMT, equation 14)."""
    return ((5.0 + lengths.float()) / 6.0) ** alpha


def greedy(
    model: Transformer,
    prompts: Tensor,
    *,
    maximum: int,
    end: int | None = None,
    lengths: Tensor | None = None,
    source: Tensor | None = None,
    source_lengths: Tensor | None = None,
) -> Decoded:
    """Append the likeliest next token to each prompt until it is `end` or there are `maximum` new tokens.

    prompts [B, L] of `lengths` [B]; an encoder-decoder continues them for its source [B, Ls] of `source_lengths` [B].
    Raises InputError for prompts, sources and lengths that don't fit the model.
    """
    return _one_by_one(
        model, prompts, lambda logits: logits.argmax(dim=-1), maximum, end, lengths, source, source_lengths
    )


def sample(
    model: Transformer,
    prompts: Tensor,
    *,
    maximum: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    end: int | None = None,
    lengths: Tensor | None = None,
    source: Tensor | None = None,
    source_lengths: Tensor | None = None,
) -> Decoded:
    """Draw tokens from the model's distribution; the arguments are those of `greedy`, the generator on their device.

    Logits are divided by `temperature`; then only the `top_k` likeliest tokens stay (Fan et al. 2018), then the fewest
    likeliest tokens whose probabilities sum to at least `top_p` (Holtzman et al. 2020, nucleus sampling). The returned
    log-probability is that of the unchanged model. Raises InputError for values out of range.
    """
    if not temperature > 0:
        raise InputError(f"temperature must be more than 0, and {temperature:g} was given: use greedy().")
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k must be at least 1, and {top_k} was given.")
    if top_p is not None and not 0 < top_p <= 1:
        raise InputError(f"top_p must be more than 0 and at most 1, and {top_p:g} was given.")

    def choose(logits: Tensor) -> Tensor:
        below = logits - logits.amax(dim=-1, keepdim=True)  # at most 0, so that no temperature makes it infinite
        shares = _filtered(below / temperature, top_k, top_p).softmax(dim=-1)
        return torch.multinomial(shares, 1, generator=generator).squeeze(1)

    return _one_by_one(model, prompts, choose, maximum, end, lengths, source, source_lengths)


def _filtered(logits: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Set the logits [B, V] of tokens that may not be drawn to −inf."""
    if top_k is not None and top_k < logits.shape[-1]:
        best_logits, best_tokens = logits.topk(top_k, dim=-1)
        logits = torch.full_like(logits, -math.inf).scatter(1, best_tokens, best_logits)
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        shares = ordered.softmax(dim=-1)
        beyond = shares.cumsum(dim=-1) - shares >= top_p  # the likeliest always stays
        logits = logits.masked_fill(beyond.scatter(1, order, beyond), -math.inf)
    return logits


@torch.no_grad()
def _one_by_one(
    model: Transformer,
    prompts: Tensor,
    choose: Callable[[Tensor], Tensor],
    maximum: int,
    end: int | None,
    lengths: Tensor | None,
    source: Tensor | None,
    source_lengths: Tensor | None,
) -> Decoded:
    """Append tokens to each prompt, which `choose` picks from the logits [B, V] after its last token."""
    with _Reading(model, prompts, maximum, end, lengths, source, source_lengths) as reading:
        batch, device = prompts.shape[0], prompts.device
        tokens = torch.full((batch, maximum), 0 if end is None else end, dtype=torch.long, device=device)
        log_probability = torch.zeros(batch, dtype=torch.float32, device=device)
        running = torch.ones(batch, dtype=torch.bool, device=device)
        count = torch.zeros(batch, dtype=torch.long, device=device)
        rows = torch.arange(batch, device=device)  # the prompts still in the cache: at most half of them have ended
        logits = reading.first()
        for step in range(maximum):
            chosen = torch.where(running, choose(logits), tokens[rows, step])
            added = logits.log_softmax(dim=-1).gather(1, chosen[:, None])[:, 0]
            log_probability[rows] += added.masked_fill(~running, 0.0)
            tokens[rows, step] = chosen
            count[rows] += running
            still_running = None
            if end is not None:
                running = running & (chosen != end)
                left = int(running.sum())
                if not left:
                    return Decoded(tokens[:, : step + 1], count, log_probability)
                if 2 * left <= len(rows):
                    [still_running] = running.nonzero(as_tuple=True)
                    rows, chosen, running = rows[still_running], chosen[still_running], running[still_running]
            if step + 1 < maximum:
                logits = reading.next(chosen, still_running)
        return Decoded(tokens, count, log_probability)


@torch.no_grad()
def beam_search(
    model: Transformer,
    prompts: Tensor,
    *,
    maximum: int,
    end: int,
    beam: int = 4,
    alpha: float = 0.6,
    lengths: Tensor | None = None,
    source: Tensor | None = None,
    source_lengths: Tensor | None = None,
) -> Decoded:
    """Return the hypothesis with the best score (log-probability over length penalty) that a beam search finds.

    The prompts and sources are those of `greedy`. A hypothesis that ends is scored, once, and leaves the beam, which is
    one narrower from then on (Sutskever et al. 2014, section 3.2). The search stops when the beam is empty, or when no
    hypothesis in it can still beat the best that ended. Hypotheses that haven't ended after `maximum` tokens compete as
    they are. With beam 1 this is greedy search. Raises InputError for arguments that don't fit.
    """
    if beam < 1:
        raise InputError(f"beam must be at least 1, and {beam} was given.")
    if not 0 <= alpha < math.inf:
        raise InputError(
            f"alpha must be a number of at least 0, and {alpha:g} was given: larger favours longer results."
        )
    with _Reading(model, prompts, maximum, end, lengths, source, source_lengths) as reading:
        logits = reading.first()
        search = _Beams(prompts.shape[0], beam, maximum, end, alpha, logits.device)
        for step in range(maximum):
            open_rows = search.extend(step, logits)
            if open_rows is None:
                break
            rows, same_sentences = open_rows
            logits = reading.next(search.last_tokens(step), rows, same_source=same_sentences)
        return search.best()


class _Reading:
    """Opens a context in which a model, in evaluation, reads prompts and then one token at a time."""

    def __init__(
        self,
        model: Transformer,
        prompts: Tensor,
        maximum: int,
        end: int | None,
        lengths: Tensor | None,
        source: Tensor | None,
        source_lengths: Tensor | None,
    ) -> None:
        if maximum < 1:
            raise InputError(f"maximum must be at least 1 new token, and {maximum} was given.")
        if prompts.dim() != 2 or not prompts.numel():
            raise InputError(f"prompts must be [batch, length] with at least one token, not {list(prompts.shape)}.")
        if end is not None and not 0 <= end < model.config.vocabulary:
            raise InputError(f"end is a token below {model.config.vocabulary}, and {end} was given.")
        if lengths is not None and lengths.device.type == "cpu" and lengths.numel() and int(lengths.min()) < 1:
            raise InputError(f"a prompt has at least 1 token, and a length of {int(lengths.min())} was given.")
        self.model, self.prompts, self.lengths = model, prompts, lengths
        self._room = prompts.shape[1] + maximum - 1
        self._source, self._source_lengths = source, source_lengths

    def __enter__(self) -> "_Reading":
        self._was_training = self.model.training
        self.model.eval()
        return self

    def __exit__(self, *_: object) -> None:
        self.model.train(self._was_training)

    def first(self) -> Tensor:
        """Read the prompts; return the logits [B, V] after them."""
        self._cache: KeyValueCache = self.model.new_cache(
            self.prompts.shape[0], self._room, source=self._source, source_lengths=self._source_lengths
        )
        return self._read(self.prompts, self.lengths)

    def next(self, tokens: Tensor, rows: Tensor | None = None, *, same_source: bool = False) -> Tensor:
        """Read one more token each, [B'], and return the logits after it, [B', V].

        rows [B']: the entries of the last call that the tokens follow; None: all of them, in order.
        """
        if rows is not None:
            self._cache.reorder(rows, same_source=same_source)
        return self._read(tokens[:, None], None)

    def _read(self, tokens: Tensor, lengths: Tensor | None) -> Tensor:
        try:
            logits: Tensor = self.model(tokens, lengths=lengths, cache=self._cache, last_only=True)
        except OutsideDomainError as error:
            raise InputError(f"{self._room} tokens can't be read by this model: {error}.") from None
        return logits[:, 0].float()


class _Beams:
    """Keeps the hypotheses of each sentence: those in its beam, and the best of those that have ended."""

    def __init__(self, batch: int, beam: int, maximum: int, end: int, alpha: float, device: torch.device) -> None:
        self.maximum, self.end, self.alpha = maximum, end, alpha
        self.least_penalised = length_penalty(torch.tensor(maximum, device=device), alpha)
        """The penalty of the longest hypothesis, which gives a (negative) log-probability its highest score."""
        self.sentences = torch.arange(batch, device=device)
        """[S]: the sentences still searched, which `tokens`, `open` and `ended` are about; at most half have ended."""
        self.tokens = torch.full((batch, beam, maximum), end, dtype=torch.long, device=device)
        self.open = torch.full((batch, beam), -math.inf, dtype=torch.float32, device=device)
        """[S, K]: the log-probability of the hypotheses in the beam, best first; −inf for an empty place."""
        self.open[:, 0] = 0.0
        self.ended = torch.zeros(batch, dtype=torch.long, device=device)
        """[S]: how many hypotheses of each sentence have ended."""
        self.best_score = torch.full((batch,), -math.inf, dtype=torch.float32, device=device)
        """[B]: the score of the best hypothesis that has ended, of every sentence; so are all `best_` fields."""
        self.best_log_probability = torch.full((batch,), -math.inf, dtype=torch.float32, device=device)
        self.best_tokens = torch.full((batch, maximum), end, dtype=torch.long, device=device)
        self.best_length = torch.zeros(batch, dtype=torch.long, device=device)

    def extend(self, step: int, logits: Tensor) -> tuple[Tensor, bool] | None:
        """Add a token to every hypothesis in the beam.

        logits: [S, V] at the first step, [S · K, V] after it. Returns the row of `logits` that each hypothesis now in
        the beam comes from, [S · K], and whether each sentence is still in its old place; None if the search is over.
        """
        chosen, parent, token = self._candidates(logits)
        self.tokens = self.tokens.gather(1, parent[..., None].expand_as(self.tokens))
        self.tokens[:, :, step] = token
        ends = chosen.isfinite() & ((token == self.end) | (step + 1 == self.maximum))
        self._update_best(step, chosen.masked_fill(~ends, -math.inf))
        self.ended = self.ended + ends.sum(dim=1)
        attainable = chosen.masked_fill(ends, -math.inf).amax(dim=1, keepdim=True) / self.least_penalised
        beaten = attainable <= self.best_score[self.sentences, None]
        self.open = chosen.masked_fill(ends | beaten, -math.inf)
        parents = len(logits) // len(self.sentences)
        rows = torch.arange(len(self.sentences), device=parent.device)[:, None] * parents + parent
        searched = self.open.isfinite().any(dim=1)
        left = int(searched.sum())
        if not left:
            return None
        same_sentences = step > 0
        if 2 * left <= len(searched):
            same_sentences = False
            [still] = searched.nonzero(as_tuple=True)
            rows, self.sentences, self.tokens = rows[still], self.sentences[still], self.tokens[still]
            self.open, self.ended = self.open[still], self.ended[still]
        return rows.flatten(), same_sentences

    def _candidates(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log-probability, parent and token of the best continuations for the beam's places, [S, K] each."""
        sentences, beam = self.open.shape
        gains = logits.log_softmax(dim=-1).view(sentences, -1, logits.shape[-1])  # [S, 1 or K, V]
        totals = (self.open[:, : gains.shape[1], None] + gains).flatten(1)  # [S, K · V]
        chosen, index = totals.topk(min(beam, totals.shape[1]), dim=1)  # best first
        missing = beam - chosen.shape[1]
        chosen, index = nn.functional.pad(chosen, (0, missing), value=-math.inf), nn.functional.pad(index, (0, missing))
        rank = torch.arange(beam, device=chosen.device)
        chosen = chosen.masked_fill(rank >= beam - self.ended[:, None], -math.inf)  # ended hypotheses narrow the beam
        return chosen, index // gains.shape[-1], index % gains.shape[-1]

    def _update_best(self, step: int, ended: Tensor) -> None:
        """Store the best of the hypotheses that ended at this step, [S, K] log-probabilities, if it is the best so far.

        Hypotheses that didn't end are −inf.
        """
        log_probability, place = ended.max(dim=1)
        length = torch.full_like(place, step + 1)
        score = log_probability / length_penalty(length, self.alpha)
        [better] = (score > self.best_score[self.sentences]).nonzero(as_tuple=True)
        sentences = self.sentences[better]
        self.best_score[sentences] = score[better]
        self.best_log_probability[sentences] = log_probability[better]
        self.best_tokens[sentences] = self.tokens[better, place[better]]
        self.best_length[sentences] = length[better]

    def last_tokens(self, step: int) -> Tensor:
        """Return the newest token of every hypothesis, [S · K]."""
        return self.tokens[:, :, step].flatten()

    def best(self) -> Decoded:
        """Return the best hypothesis of each sentence."""
        beyond = torch.arange(self.maximum, device=self.best_length.device) >= self.best_length[:, None]
        tokens = self.best_tokens.masked_fill(beyond, self.end)
        return Decoded(tokens[:, : int(self.best_length.max())], self.best_length, self.best_log_probability)
