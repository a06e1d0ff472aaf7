"""Decode token by token: with the key/value cache, and with the whole sequence computed again for each token."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trans4init.ablations.device import choose_device
from trans4init.ablations.transformer import Transformer, TransformerConfig, greedy
from trans4init.bench.replay import test_implementation  # noqa: F401  pytest finds it here
from trans4init.bench.suite import Call, Case, Suite
from trans4init.bench.suites.lower_bounds import decoding_lower_bound

_BATCH, _PROMPT = 8, 16


@dataclass(frozen=True)
class _Inputs:
    model: Transformer
    prompts: Tensor
    maximum: int


def _cases() -> list[Case]:
    cases = []
    for position in ("sinusoidal", "rope", "alibi"):
        for length in (64, 256):
            size = f"nano, batch {_BATCH}, {length} new tokens"
            config = _config(position, length)
            least = decoding_lower_bound(config, config.vocabulary, _BATCH, _PROMPT, length)
            cases.append(
                Case(
                    f"decoding with {position}",
                    size,
                    {"length": length},
                    flop=least.flop,
                    bytes=least.bytes,
                    tokens=_BATCH * length,
                    quick=position == "sinusoidal" and length == 64,
                    rounds=8 if length == 64 else 6,
                )
            )
    return cases


def _config(position: str, length: int) -> TransformerConfig:
    return TransformerConfig.preset("nano", context=_PROMPT + length, position=position)


def _inputs(case: Case) -> _Inputs:
    position, length = case.operator.split()[-1], case.shape["length"]
    config = _config(position, length)
    model = Transformer(config).to(choose_device()).eval()
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(config.vocabulary, (_BATCH, _PROMPT), generator=generator).to(choose_device())
    return _Inputs(model, prompts, length)


def _check(inputs: _Inputs, implementation: str, tokens: Tensor) -> str:
    """Check that every token is the likeliest one after those before it, by one pass over the whole sequence."""
    if tokens.shape != (_BATCH, inputs.maximum):
        return f"{tuple(tokens.shape)} tokens, not {(_BATCH, inputs.maximum)}"
    with torch.no_grad():
        likeliest = inputs.model(torch.cat([inputs.prompts, tokens], dim=1)[:, :-1])[:, _PROMPT - 1 :].argmax(dim=-1)
    same = (tokens == likeliest).all(dim=1).float().mean().item()
    return "" if same == 1 else f"{1 - same:.0%} of the sequences are wrong"


SUITE = Suite("decoding", _cases, _inputs, _check, baseline="no cache")


@SUITE.implementation("no cache")
def _no_cache(inputs: _Inputs) -> Call:
    def call() -> Tensor:
        tokens = inputs.prompts
        with torch.no_grad():
            for _ in range(inputs.maximum):
                following = inputs.model(tokens)[:, -1].argmax(dim=-1, keepdim=True)
                tokens = torch.cat([tokens, following], dim=1)
        return tokens[:, _PROMPT:]

    return call


@SUITE.implementation("cache")
def _cache(inputs: _Inputs) -> Call:
    return lambda: greedy(inputs.model, inputs.prompts, maximum=inputs.maximum).tokens
