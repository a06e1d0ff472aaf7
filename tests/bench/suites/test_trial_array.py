"""Several runs trained as one tensor program equal the runs trained alone."""

import pytest
import torch

from trans4init.ablations.data.text import TextConfig
from trans4init.ablations.errors import InputError
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.tasks import TASKS
from trans4init.ablations.training.loop import TrainingStep
from trans4init.ablations.transformer import Transformer, TransformerConfig
from trans4init.bench.suites.trial_array import TrialArray

SMALL = TransformerConfig(layers=2, width=16, heads=2, context=8)


@pytest.mark.parametrize(("clip", "frozen"), [(0.05, False), (0.05, True), (100.0, False)])
def test_runs_together_are_the_runs_by_themselves(clip, frozen):
    """Losses of six steps agree in float64, where rounding is negligible; each run's gradient is clipped by itself."""
    task = TASKS.get("text")(TextConfig(), SMALL.context, torch.device("cpu"))
    config = TrainingConfig(
        steps=20,
        batch=3,
        learning_rate=1e-2,
        warmup_steps=2,
        clip=clip,
        weight_decay=0.3,
        beta1=0.8,
        beta2=0.95,
        label_smoothing=0.1,
    )
    models = [Transformer(SMALL, seed=seed).double() for seed in range(3)]
    for model in models:
        model.blocks[0].requires_grad_(not frozen)
    streams = [task.batches(seed, 3, "evaluate") for seed in range(3)]
    batches = [[next(stream) for stream in streams] for _ in range(6)]
    array = TrialArray(models, task, config)
    together = torch.stack([array(row) for row in batches], dim=1)
    steps = [TrainingStep(model, task, config) for model in models]
    alone = torch.stack([torch.stack([step(row[run]) for row in batches]) for run, step in enumerate(steps)])
    assert alone[:, -1].mean() < alone[:, 0].mean()
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("asked", [{"precision": "bfloat16"}, {"accumulate": 2}, {"compile": True}])
def test_what_an_array_does_not_do_is_refused(asked):
    task = TASKS.get("text")(TextConfig(), SMALL.context, torch.device("cpu"))
    with pytest.raises(ValueError, match="a trial array trains in its models' precision"):
        TrialArray([Transformer(SMALL)], task, TrainingConfig(steps=1, batch=2, **asked))


def test_a_token_outside_the_vocabulary_is_refused_but_where_torch_func_hides_its_value():
    model = Transformer(TransformerConfig(layers=1, width=8, heads=2, context=4, vocabulary=5))
    tokens = torch.tensor([[[1, 2]], [[3, 4]]])
    assert torch.func.vmap(model)(tokens).shape == (2, 1, 2, 5)
    with pytest.raises(InputError, match="token 9 is not in the vocabulary of 5"):
        model(tokens[0] + 7)
