"""Text from a model: greedy search, beam search and sampling, each with the key/value cache.

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
    """What follows each prompt."""

    tokens: Tensor
    """[B, N] int64; what is beyond a sequence's length means nothing (the end token where there is one, else 0)."""
    lengths: Tensor
    """[B] int64: new tokens of each sequence, its end token included."""
    log_probability: Tensor
    """[B] float32, in nats: of the new tokens, as the model gives it."""

    def score(self, alpha: float = 0.0) -> Tensor:
        """[B]: the log-probability over the length penalty, which is what beam search compares."""
        return self.log_probability / length_penalty(self.lengths, alpha)

    def sequences(self, end: int | None = None) -> list[list[int]]:
        """The new tokens as lists, without their end token where it is given."""
        rows = [row[:length] for row, length in zip(self.tokens.tolist(), self.lengths.tolist(), strict=True)]
        return [row[:-1] if row and row[-1] == end else row for row in rows]


def length_penalty(lengths: Tensor, alpha: float) -> Tensor:
    """((5 + length) / 6)^alpha, [...] to [...] float32 (Wu et al. 2016, Google's NMT, section 7, equation 14)."""
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
    """The likeliest next token, again and again, up to `maximum` of them or the token `end`.

    prompts [B, L] of `lengths` [B]; an encoder-decoder continues them for its source [B, Ls] of `source_lengths` [B].
    Raises InputError for prompts, sources and lengths that don't fit.
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
    """Tokens drawn from the model's distribution, as `greedy` takes its prompts; the generator is on their device.

    Logits are divided by `temperature`; then only the `top_k` likeliest tokens stay (Fan et al. 2018), then the fewest
    likeliest that together have at least the share `top_p` (Holtzman et al. 2020, nucleus sampling). The
    log-probability is that of the model before all this.
    """
    if not temperature > 0:
        raise InputError(f"temperature must be more than 0, and {temperature:g} was given; greedy takes the likeliest.")
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
    """Logits [B, V] with −inf for the tokens that may not be drawn."""
    if top_k is not None and top_k < logits.shape[-1]:
        best, which = logits.topk(top_k, dim=-1)
        logits = torch.full_like(logits, -math.inf).scatter(1, which, best)
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
    """Continue each prompt by what `choose` makes of the logits [B, V] of its last token."""
    with _Reading(model, prompts, maximum, end, lengths, source, source_lengths) as reading:
        batch, device = prompts.shape[0], prompts.device
        tokens = torch.full((batch, maximum), 0 if end is None else end, dtype=torch.long, device=device)
        log_probability = torch.zeros(batch, device=device)
        running = torch.ones(batch, dtype=torch.bool, device=device)
        count = torch.zeros(batch, dtype=torch.long, device=device)
        rows = torch.arange(batch, device=device)  # the prompts that are read on: at most half of them have ended
        logits = reading.first()
        for step in range(maximum):
            chosen = torch.where(running, choose(logits), tokens[rows, step])
            gained = logits.log_softmax(dim=-1).gather(1, chosen[:, None])[:, 0]
            log_probability[rows] += gained.masked_fill(~running, 0.0)
            tokens[rows, step] = chosen
            count[rows] += running
            kept = None
            if end is not None:
                running = running & (chosen != end)
                left = int(running.sum())
                if not left:
                    return Decoded(tokens[:, : step + 1], count, log_probability)
                if 2 * left <= len(rows):
                    [kept] = running.nonzero(as_tuple=True)
                    rows, chosen, running = rows[kept], chosen[kept], running[kept]
            if step + 1 < maximum:
                logits = reading.next(chosen, kept)
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
    """The best hypothesis of a beam search, by log-probability over length penalty; prompts as `greedy` takes them.

    A hypothesis that ends leaves the beam, which is one narrower from then on (Sutskever et al. 2014, section 3.2), and
    is kept; its penalty is applied when it ends, once. The search is over when the beam is empty, or when no hypothesis
    in it can still beat the best that ended. What hasn't ended after `maximum` tokens competes as it stands.
    With beam 1 this is greedy search.
    """
    if beam < 1:
        raise InputError(f"beam must be at least 1, and {beam} was given.")
    if not 0 <= alpha < math.inf:
        raise InputError(f"alpha must be a number of at least 0, and {alpha:g} was given: it favours longer results.")
    with _Reading(model, prompts, maximum, end, lengths, source, source_lengths) as reading:
        logits = reading.first()
        search = _Beams(prompts.shape[0], beam, maximum, end, alpha, logits.device)
        for step in range(maximum):
            going = search.extend(step, logits)
            if going is None:
                break
            rows, same_sentences = going
            logits = reading.next(search.last_tokens(step), rows, same_source=same_sentences)
        return search.best()


class _Reading:
    """A model that reads prompts, then one token at a time; in evaluation while it does."""

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
            raise InputError(f"prompts are [batch, length] with at least one token, not {list(prompts.shape)}.")
        if end is not None and not 0 <= end < model.config.vocabulary:
            raise InputError(f"end is a token below {model.config.vocabulary}, not {end}.")
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
        """Logits [B, V] after the prompts."""
        self._cache: KeyValueCache = self.model.new_cache(
            self.prompts.shape[0], self._room, source=self._source, source_lengths=self._source_lengths
        )
        return self._read(self.prompts, self.lengths)

    def next(self, tokens: Tensor, rows: Tensor | None = None, *, same_source: bool = False) -> Tensor:
        """Logits [B', V] after one more token each, [B'], for the entries `rows` [B'] of the last call, or for all."""
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
    """The hypotheses of each sentence: those in its beam, and the best that has ended."""

    def __init__(self, batch: int, beam: int, maximum: int, end: int, alpha: float, device: torch.device) -> None:
        self.maximum, self.end, self.alpha = maximum, end, alpha
        self.least_penalised = length_penalty(torch.tensor(maximum, device=device), alpha)
        """The penalty that leaves a log-probability, which is negative, the highest score."""
        self.sentences = torch.arange(batch, device=device)
        """[S], those that are searched on; at most half of them are over. What follows is of these."""
        self.tokens = torch.full((batch, beam, maximum), end, dtype=torch.long, device=device)
        self.open = torch.full((batch, beam), -math.inf, device=device)
        """Log-probability of the hypotheses in the beam, best first, −inf where there is none."""
        self.open[:, 0] = 0.0
        self.ended = torch.zeros(batch, dtype=torch.long, device=device)
        """How many hypotheses of each sentence have ended."""
        self.best_score = torch.full((batch,), -math.inf, device=device)
        """[B], as all of the best: of every sentence."""
        self.best_log_probability = torch.full((batch,), -math.inf, device=device)
        self.best_tokens = torch.full((batch, maximum), end, dtype=torch.long, device=device)
        self.best_length = torch.zeros(batch, dtype=torch.long, device=device)

    def extend(self, step: int, logits: Tensor) -> tuple[Tensor, bool] | None:
        """Add a token to every hypothesis; the rows of the last call that they go on from, or None: the search is over.

        logits [S, V] at the first step, [S · K, V] after it. With the rows comes whether each has the same sentence.
        """
        chosen, parent, token = self._candidates(logits)
        self.tokens = self.tokens.gather(1, parent[..., None].expand_as(self.tokens))
        self.tokens[:, :, step] = token
        ends = chosen.isfinite() & ((token == self.end) | (step + 1 == self.maximum))
        self._keep(step, chosen.masked_fill(~ends, -math.inf))
        self.ended = self.ended + ends.sum(dim=1)
        attainable = chosen.masked_fill(ends, -math.inf).amax(dim=1, keepdim=True) / self.least_penalised
        beaten = attainable <= self.best_score[self.sentences, None]
        self.open = chosen.masked_fill(ends | beaten, -math.inf)
        parents = len(logits) // len(self.sentences)
        rows = torch.arange(len(self.sentences), device=parent.device)[:, None] * parents + parent
        going = self.open.isfinite().any(dim=1)
        left = int(going.sum())
        if not left:
            return None
        same_sentences = step > 0
        if 2 * left <= len(going):
            same_sentences = False
            [kept] = going.nonzero(as_tuple=True)
            rows, self.sentences, self.tokens = rows[kept], self.sentences[kept], self.tokens[kept]
            self.open, self.ended = self.open[kept], self.ended[kept]
        return rows.flatten(), same_sentences

    def _candidates(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best continuations, as many as a beam has room for: log-probability, parent and token, [S, K] each."""
        sentences, beam = self.open.shape
        gains = logits.log_softmax(dim=-1).view(sentences, -1, logits.shape[-1])  # [S, 1 or K, V]
        totals = (self.open[:, : gains.shape[1], None] + gains).flatten(1)  # [S, K · V]
        chosen, index = totals.topk(min(beam, totals.shape[1]), dim=1)  # best first
        missing = beam - chosen.shape[1]
        chosen, index = nn.functional.pad(chosen, (0, missing), value=-math.inf), nn.functional.pad(index, (0, missing))
        rank = torch.arange(beam, device=chosen.device)
        chosen = chosen.masked_fill(rank >= beam - self.ended[:, None], -math.inf)  # what has ended takes room
        return chosen, index // gains.shape[-1], index % gains.shape[-1]

    def _keep(self, step: int, ended: Tensor) -> None:
        """Of what ended at this step, [S, K] log-probabilities, keep the best hypothesis if it is the best so far."""
        log_probability, which = ended.max(dim=1)
        length = torch.full_like(which, step + 1)
        score = log_probability / length_penalty(length, self.alpha)
        [better] = (score > self.best_score[self.sentences]).nonzero(as_tuple=True)
        of = self.sentences[better]
        self.best_score[of] = score[better]
        self.best_log_probability[of] = log_probability[better]
        self.best_tokens[of] = self.tokens[better, which[better]]
        self.best_length[of] = length[better]

    def last_tokens(self, step: int) -> Tensor:
        """The newest token of every hypothesis, [S · K]."""
        return self.tokens[:, :, step].flatten()

    def best(self) -> Decoded:
        """The best hypothesis of each sentence."""
        beyond = torch.arange(self.maximum, device=self.best_length.device) >= self.best_length[:, None]
        tokens = self.best_tokens.masked_fill(beyond, self.end)
        return Decoded(tokens[:, : int(self.best_length.max())], self.best_length, self.best_log_probability)
