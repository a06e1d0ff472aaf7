"""Tests that greedy search, beam search and sampling with a cache follow the logits of the model without one."""

import itertools
import math
from functools import partial

import pytest
import torch

from trans4init.ablations.errors import InputError
from trans4init.ablations.transformer import Transformer, TransformerConfig, beam_search, greedy, sample
from trans4init.ablations.transformer.decoding import Decoded, _Beams, length_penalty

SIZES = {"layers": 2, "width": 16, "heads": 4, "vocabulary": 9, "context": 16, "tied_output": False}
POSITIONS = ["sinusoidal", "learned-table", "rope", "xpos", "alibi", "t5", "learned-distance", "fire-query", "none"]
END = 7  # a token that untrained models of these sizes say early and late


def model_of(kind="decoder", seed=0, **changes):
    """Return an untrained model; its output doesn't repeat its input, since output and embedding aren't tied."""
    return Transformer(TransformerConfig(kind=kind, **SIZES | changes), seed=seed)


def tokens_of(*shape, seed=0, vocabulary=9):
    return torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(seed))


def source_of(kind, batch, seed=3):
    """Return sources of several lengths for an encoder-decoder; nothing for a decoder."""
    if kind == "decoder":
        return {}
    return {"source": tokens_of(batch, 7, seed=seed), "source_lengths": torch.tensor([7, 3, 1, 5] * 6)[:batch]}


def entry(options, row):
    """Return the options for one batch entry."""
    return {name: value[row : row + 1] for name, value in options.items()}


def log_probability_of(model, prompt, continuation, options):
    """Return the log-probability of a continuation, from the whole sequence at once, without a cache."""
    tokens = torch.tensor([[*prompt, *continuation]])
    with torch.no_grad():
        logits = model.eval()(tokens[:, :-1], **options).log_softmax(-1)
    return sum(logits[0, len(prompt) - 1 + i, token].item() for i, token in enumerate(continuation))


KINDS = ("decoder", "encoder-decoder")
SHAPES = [{}, {"key_value_heads": 2, "gated": True, "norm_placement": "post", "bias": True}, {"softmax": "stablemax"}]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("position", POSITIONS)
def test_cached_logits_are_the_uncached_ones(kind, position):
    """Reads prompts of several lengths, then single tokens, then several at once."""
    for changes in SHAPES:
        model, options = model_of(kind, position=position, **changes).eval(), source_of(kind, 3)
        tokens, lengths = tokens_of(3, 12), torch.tensor([4, 1, 5])
        with torch.no_grad():
            whole = model(tokens, **options)
            cache = model.new_cache(3, 12, **options)
            cached = [model(tokens[:, :5], lengths=lengths, cache=cache)]
            for step in range(3):
                cached.append(model(tokens.gather(1, lengths[:, None] + step), cache=cache))
            cached.append(model(tokens.gather(1, lengths[:, None] + 3 + torch.arange(4)), cache=cache))
        for row, length in enumerate(lengths.tolist()):
            parts = [cached[0][row, :length], *(part[row] for part in cached[1:])]
            torch.testing.assert_close(torch.cat(parts), whole[row, : length + 7], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reordered_cache_continues_the_chosen_entries(kind):
    model, options = model_of(kind, position="alibi").eval(), source_of(kind, 3)
    tokens, rows = tokens_of(3, 8), torch.tensor([2, 0, 0, 1])
    with torch.no_grad():
        whole = model(tokens, **options)
        cache = model.new_cache(3, 8, **options)
        model(tokens[:, :6], cache=cache)
        cache.reorder(rows)
        torch.testing.assert_close(model(tokens[rows, 6:], cache=cache), whole[rows, 6:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_takes_the_likeliest_token_of_the_whole_model_each_time(kind):
    model, options, lengths = model_of(kind, 2).eval(), source_of(kind, 24), torch.tensor([3, 1, 2] * 8)
    prompts = tokens_of(24, 3)
    decoded = greedy(model, prompts, lengths=lengths, maximum=8, end=END, **options)
    for row, sequence in enumerate(decoded.sequences()):
        prompt = prompts[row, : lengths[row]].tolist()
        for step, token in enumerate(sequence):
            logits = model(torch.tensor([prompt + sequence[:step]]), **entry(options, row))[0, -1]
            assert logits.argmax() == token
        assert END not in sequence[:-1]
        assert sequence[-1] == END or len(sequence) == 8
        expected = log_probability_of(model, prompt, sequence, entry(options, row))
        assert decoded.log_probability[row].item() == pytest.approx(expected, abs=1e-4)
    assert decoded.lengths.tolist() == [len(sequence) for sequence in decoded.sequences()]
    assert len({*decoded.lengths.tolist()}) > 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_beam_of_one_is_greedy(kind):
    """Holds too where the likeliest next token is the end."""
    lengths = set()
    for seed in range(5):
        model, options = model_of(kind, seed), source_of(kind, 24)
        prompts, real = tokens_of(24, 3, seed=seed), torch.tensor([3, 1, 2, 3] * 6)
        greedily = greedy(model, prompts, lengths=real, maximum=9, end=END, **options)
        by_beam = beam_search(model, prompts, lengths=real, maximum=9, end=END, beam=1, **options)
        assert greedily.sequences() == by_beam.sequences()
        torch.testing.assert_close(greedily.log_probability, by_beam.log_probability, rtol=1e-5, atol=1e-4)
        lengths |= {len(sequence) for sequence in greedily.sequences()}
    assert len(lengths) > 4


def test_a_beams_score_is_no_worse_than_greedys_on_99_of_100_sentences():
    """Uses a model that is learning to reverse and still errs: otherwise a wider beam would find nothing better."""
    model = Transformer(
        TransformerConfig(kind="encoder-decoder", **SIZES | {"width": 32, "vocabulary": 10, "tied_output": True})
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)

    def batch(size):  # tokens 0..7 are to be reversed, 8 ends, 9 begins
        tokens = torch.randint(8, (size, 6), generator=generator)
        begin, end = torch.full((size, 1), 9), torch.full((size, 1), 8)
        return tokens, torch.cat([begin, tokens.flip(1), end], dim=1)

    for _ in range(75):
        source, target = batch(64)
        logits = model(target[:, :-1], source=source)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    source, target = batch(400)
    options = {"source": source, "maximum": 10, "end": 8}
    greedily = greedy(model, target[:, :1], **options)
    for alpha in (0.0, 0.6):
        by_beam = beam_search(model, target[:, :1], beam=4, alpha=alpha, **options)
        no_worse = by_beam.score(alpha) >= greedily.score(alpha) - 1e-4
        assert no_worse.float().mean().item() >= 0.99
        better = by_beam.score(alpha) > greedily.score(alpha) + 1e-3
        assert better.sum() >= 20
    expected = source.flip(1).tolist()
    right = sum(row[:-1] == reverse for row, reverse in zip(greedily.sequences(), expected, strict=True))
    assert 0 < right < 400


def best_of_all(model, prompt, options, end, longest, alpha):
    """Return the best of all continuations that end or have `longest` tokens, and its score, without a cache."""
    vocabulary = range(model.config.vocabulary)
    every = torch.tensor(list(itertools.product(vocabulary, repeat=longest)))
    tokens = torch.cat([prompt.expand(len(every), -1), every], dim=1)
    with torch.no_grad():
        logits = model(
            tokens[:, :-1], **{name: value.expand(len(every), *value.shape[1:]) for name, value in options.items()}
        )
    sums = logits.log_softmax(-1)[:, len(prompt) - 1 :].gather(2, every[..., None])[..., 0].cumsum(1)
    scores = {}
    for sequence, totals in zip(every.tolist(), sums.tolist(), strict=True):
        length = sequence.index(end) + 1 if end in sequence else longest
        scores[tuple(sequence[:length])] = totals[length - 1] / ((5 + length) / 6) ** alpha
    best = max(scores, key=scores.get)
    return list(best), scores[best]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_a_beam_wide_enough_for_all_continuations_finds_the_best_of_all(kind, alpha):
    lengths = set()
    for seed in range(6):
        model, options = model_of(kind, seed, vocabulary=4).eval(), source_of(kind, 4)
        options = {name: value.clamp_max(3) if name == "source" else value for name, value in options.items()}
        prompts = tokens_of(4, 2, seed=seed, vocabulary=4)
        decoded = beam_search(model, prompts, maximum=4, end=3, beam=256, alpha=alpha, **options)
        for row in range(4):
            best, score = best_of_all(model, prompts[row], entry(options, row), 3, 4, alpha)
            assert decoded.sequences()[row] == best
            assert decoded.score(alpha)[row].item() == pytest.approx(score, abs=1e-4)
            lengths.add(len(best))
    assert len(lengths) >= 3


def test_a_beam_is_narrower_by_what_has_ended_and_that_is_kept():
    """Of three tokens the last is the end: it takes the second of two places, which stays empty from then on."""
    search = _Beams(1, 2, maximum=5, end=2, alpha=2.0, device=torch.device("cpu"))
    search.extend(0, torch.tensor([[0.5, 0.2, 0.3]]).log())
    assert search.open.exp().tolist() == [[pytest.approx(0.5), 0.0]]
    search.extend(1, torch.tensor([[0.5, 0.4, 0.1], [0.5, 0.4, 0.1]]).log())
    assert search.open.exp().tolist() == [[pytest.approx(0.25), 0.0]]
    assert search.best().sequences() == [[2]]
    assert search.best().log_probability.exp().tolist() == [pytest.approx(0.3)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decode", [greedy, partial(beam_search, beam=3)])
def test_a_batch_is_decoded_as_its_entries_alone(kind, decode):
    """Holds although sequences that have ended are dropped from the batch on the way."""
    model, options, prompts = model_of(kind, seed=2), source_of(kind, 24), tokens_of(24, 3)
    calls = []
    model.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    together = decode(model, prompts, maximum=15, end=END, **options)
    assert calls[-1] <= max(calls) // 2
    assert len({*together.lengths.tolist()}) > 3
    for i in range(24):
        alone = decode(model, prompts[i : i + 1], maximum=15, end=END, **entry(options, i))
        assert together.sequences(END)[i] == alone.sequences(END)[0]
        assert together.log_probability[i].item() == pytest.approx(alone.log_probability[0].item(), abs=1e-4)


def test_a_model_whose_positions_end_says_so():
    model = model_of(position="learned-table")
    greedy(model, PROMPT, maximum=15)
    with pytest.raises(InputError, match=r"17 tokens can't be read by this model: the table covers 0\.\.15 only"):
        greedy(model, PROMPT, maximum=16)


def test_the_length_penalty_is_equation_14():
    lengths = torch.tensor([1, 7, 25])
    torch.testing.assert_close(length_penalty(lengths, 0.6), torch.tensor([1.0, 2.0**0.6, 5.0**0.6]))
    assert torch.equal(length_penalty(lengths, 0.0), torch.ones(3))


def test_samples_have_the_models_distribution():
    model = model_of().eval()
    prompts = torch.tensor([[1, 2]]).expand(20000, 2)
    drawn = sample(model, prompts, maximum=1, generator=torch.Generator().manual_seed(0), temperature=0.7)
    shares = torch.bincount(drawn.tokens[:, 0], minlength=9) / 20000
    expected = (model(prompts[:1])[0, -1] / 0.7).softmax(-1)
    assert (shares - expected).abs().max() < 4 * math.sqrt(0.25 / 20000)


def test_top_k_and_top_p_leave_the_likeliest_and_their_ratios():
    model = model_of().eval()
    prompts = torch.tensor([[1, 2]]).expand(4000, 2)
    shares = model(prompts[:1])[0, -1].softmax(-1)
    order = shares.argsort(descending=True).tolist()

    def drawn(**options):
        samples = sample(model, prompts, maximum=1, generator=torch.Generator().manual_seed(1), **options)
        return torch.bincount(samples.tokens[:, 0], minlength=9) / 4000

    three = drawn(top_k=3)
    assert set(three.nonzero().flatten().tolist()) == set(order[:3])
    ratio = shares[order[0]] / shares[order[:3]].sum()
    assert three[order[0]].item() == pytest.approx(ratio.item(), abs=0.04)
    share = (shares[order[0]] + 0.5 * shares[order[1]]).item()
    assert set(drawn(top_p=share).nonzero().flatten().tolist()) == set(order[:2])
    assert set(drawn(top_p=1e-6).nonzero().flatten().tolist()) == {order[0]}
    assert torch.equal(drawn(top_p=1.0, top_k=100), drawn())


def test_a_temperature_next_to_nothing_is_greedy():
    model = model_of()
    drawn = sample(model, PROMPT, maximum=5, generator=torch.Generator().manual_seed(0), temperature=1e-40)
    assert torch.equal(drawn.tokens, greedy(model, PROMPT, maximum=5).tokens)


def test_the_same_generator_state_gives_the_same_samples():
    model, prompts = model_of(), tokens_of(4, 3)
    first, same, other = (
        sample(model, prompts, maximum=8, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(first.tokens, same.tokens)
    assert not torch.equal(first.tokens, other.tokens)


def test_decoding_leaves_the_model_in_training_and_without_gradients():
    model = model_of(dropout=0.5).train()
    first, second = (greedy(model, tokens_of(2, 3), maximum=6) for _ in range(2))
    assert torch.equal(first.tokens, second.tokens)
    assert model.training
    assert not first.log_probability.requires_grad


def test_sequences_are_without_their_end():
    tokens = torch.tensor([[1, 2, END], [END, END, END]])
    decoded = Decoded(tokens, torch.tensor([3, 1]), torch.zeros(2))
    assert decoded.sequences(END) == [[1, 2], []]
    assert decoded.sequences() == [[1, 2, END], [END]]


PROMPT = torch.tensor([[1, 2]])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda m: greedy(m, PROMPT, maximum=0), "maximum must be at least 1"),
        (lambda m: greedy(m, PROMPT[:, :0], maximum=1), "at least one token"),
        (lambda m: greedy(m, PROMPT, maximum=1, lengths=torch.tensor([0])), "at least 1 token, and a length of 0"),
        (lambda m: greedy(m, PROMPT, maximum=1, lengths=torch.tensor([3])), "lengths must be from 1 to 2, and 3"),
        (lambda m: greedy(m, PROMPT, maximum=1, source=PROMPT), "has no encoder"),
        (lambda m: beam_search(m, PROMPT, maximum=1, end=0, beam=0), "beam must be at least 1"),
        (lambda m: beam_search(m, PROMPT, maximum=1, end=0, alpha=-1), "alpha must be a number of at least 0"),
        (lambda m: beam_search(m, PROMPT, maximum=1, end=0, alpha=math.nan), "alpha must be a number of at least 0"),
        (lambda m: beam_search(m, PROMPT, maximum=1, end=-1), "end is a token below"),
        (lambda m: greedy(m, PROMPT, maximum=1, end=99), "end is a token below"),
        (lambda m: greedy(m, PROMPT[:0], maximum=1), "at least one token"),
        (lambda m: sample(m, PROMPT, maximum=1, generator=torch.Generator(), temperature=0), "temperature must be"),
        (lambda m: sample(m, PROMPT, maximum=1, generator=torch.Generator(), top_k=0), "top_k must be at least 1"),
        (lambda m: sample(m, PROMPT, maximum=1, generator=torch.Generator(), top_p=1.5), "top_p must be"),
        (lambda m: m(PROMPT, cache=m.new_cache(1, 1)), "room for 1 tokens, and 2 more after 0"),
        (lambda m: m(PROMPT, cache=m.new_cache(2, 4)), "the cache is for 2 sequences, and 1"),
        (lambda m: m(PROMPT, mask=torch.ones(2, 2).bool(), cache=m.new_cache(1, 4)), "a mask can't be given as well"),
    ],
)
def test_what_can_not_be_decoded_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call(model_of())


def test_only_causal_models_decode_and_an_encoder_decoder_needs_a_source():
    with pytest.raises(InputError, match="needs a source"):
        greedy(model_of("encoder-decoder"), PROMPT, maximum=2)
    with pytest.raises(InputError, match="kind encoder reads everything at once"):
        greedy(model_of("encoder"), PROMPT, maximum=2)
