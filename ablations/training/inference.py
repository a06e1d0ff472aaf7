"""Use a trained model: continue a text, or translate a sequence."""

from dataclasses import dataclass

import torch

from trans4init.ablations.data.codec import Codec
from trans4init.ablations.data.pairs import END
from trans4init.ablations.errors import InputError
from trans4init.ablations.settings.numbers import LARGEST_SEED
from trans4init.ablations.slots.contents import OutsideDomainError
from trans4init.ablations.tasks import TASKS
from trans4init.ablations.tasks.pairs import PairTask, prompts, readable, without_specials
from trans4init.ablations.training.run import Trained
from trans4init.ablations.transformer import beam_search, greedy, sample

__all__ = ["Sampling", "generate", "translate"]


@dataclass(frozen=True)
class Sampling:
    """Says how the next token is drawn; temperature 0 takes the likeliest."""

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0


def generate(trained: Trained, prompt: str, count: int, sampling: Sampling) -> str:
    """Generate `count` tokens that follow the prompt, and return them as text.

    When prompt and text fill the model's context, it goes on from their last half context. Raises InputError for a
    model that wasn't trained on task text, and for a prompt that its tokens can't spell.
    """
    model, codec, device = trained.model, trained.codec, next(trained.model.parameters()).device
    if trained.recipe.task.name != "text" or codec is None:
        raise InputError(f"the model was trained on task {trained.recipe.task.name}; generate is for task text.")
    if not 0 <= sampling.seed <= LARGEST_SEED:
        raise InputError(f"a seed is from 0 to {LARGEST_SEED}, and {sampling.seed} was given.")
    generator = torch.Generator(device).manual_seed(sampling.seed)
    context = model.config.context
    tokens = codec.encode(prompt) if prompt else _start(codec)
    before = len(tokens)
    while len(tokens) < before + count:
        window = tokens[-context:] if len(tokens) < context else tokens[-max(1, context // 2) :]
        read = torch.tensor([window], device=device)
        maximum = min(before + count - len(tokens), context - len(window) + 1)
        if sampling.temperature == 0:
            new = greedy(model, read, maximum=maximum)
        else:
            new = sample(
                model,
                read,
                maximum=maximum,
                generator=generator,
                temperature=sampling.temperature,
                top_k=sampling.top_k,
                top_p=sampling.top_p,
            )
        tokens += new.sequences()[0]
    return codec.decode(tokens[before:])


def _start(codec: Codec) -> list[int]:
    """Return what stands for an empty prompt: a new line, or the first token if the model has no new line."""
    try:
        return codec.encode("\n")
    except InputError:
        return [0]


def translate(trained: Trained, text: str, *, beam: int, alpha: float, maximum: int) -> tuple[str, int]:
    """Return the target of a source, and its number of tokens with the end.

    Raises InputError for a model that wasn't trained on pairs, and for a source that it can't read.
    """
    task, codec = TASKS.get(trained.recipe.task.name), _pair_codec(trained)
    if not issubclass(task, PairTask):
        raise InputError(f"the model was trained on task {task.name}; translate is for tasks of pairs.")
    source = codec.encode(text)
    if not source:
        return "", 0
    prompt = prompts([source], trained.model.config.kind, next(trained.model.parameters()).device)
    try:
        most = readable(trained.model, prompt, maximum)
        tokens = beam_search(
            trained.model, prompt.tokens, maximum=most, end=END, beam=beam, alpha=alpha, **prompt.rest()
        ).sequences(END)[0]
    except OutsideDomainError as error:
        raise InputError(f"the text is too long for the model: {error}.") from None
    return codec.decode([token for token in without_specials(tokens) if token >= 0]), len(tokens) + 1


def _pair_codec(trained: Trained) -> Codec:
    if trained.codec is None:
        raise InputError(f"the model was trained on task {trained.recipe.task.name}, which has no text to translate.")
    return trained.codec
