"""A recipe's run: which split chooses its model, which model is tested on which split, and with which seed and beam."""

import pytest
import torch

from trans4init.ablations.data.translation import TranslationConfig
from trans4init.ablations.settings.model import ModelSize
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.tasks import TASKS, model_config
from trans4init.ablations.tasks import translation as translating
from trans4init.ablations.training import inference
from trans4init.ablations.training import run as running
from trans4init.ablations.training.checkpoint import read_snapshot
from trans4init.ablations.training.inference import Sampling, generate, translate
from trans4init.ablations.training.recipe import Recipe, load_recipe
from trans4init.ablations.training.run import BEST, LAST, Trained, train_recipe
from trans4init.ablations.transformer import Transformer
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import Measurement
from trans4init.reports.records.store import load_results

TINY = {
    "model": {"layers": 1, "width": 16, "heads": 2, "context": 64, "dropout": 0.1},
    "training": {"steps": 6, "batch": 4, "evaluations": 3, "learning_rate": 1e-2, "log_every": 1},
}


@pytest.fixture
def scripted(monkeypatch):
    """Makes the evaluations of a task give these values of its judged metric in turn; returns what was asked."""
    asked = []

    def script(task_class, values):
        given = iter(values)

        def evaluate(self, model, split, step, *, final):
            value = next(given)
            total = sum(p.detach().double().sum().item() for p in model.parameters())
            asked.append((split, step, final, total))
            return [Measurement(metrics.EXACT_MATCH, 1 - value, step), Measurement(self.judged, value, step)]

        monkeypatch.setattr(task_class, "evaluate", evaluate)
        return asked

    return script


@pytest.mark.parametrize(
    ("name", "options", "values", "best"),
    [
        ("copy", {"task.symbols": 12}, [0.3, 0.2, 0.4, 0.9], 4),  # a loss: lower is better
        ("classification", {"model.kind": "encoder"}, [0.3, 0.4, 0.2, 0.9], 4),  # an accuracy: higher is better
    ],
)
def test_the_best_model_by_the_validation_split_is_tested_once_on_the_test_split(
    tmp_path, scripted, name, options, values, best
):
    recipe = load_recipe(name, TINY | options)
    asked = scripted(TASKS.get(name), values)
    outcome = train_recipe(recipe, tmp_path)
    assert [(split, step, final) for split, step, final, _ in asked] == [
        ("tune", 2, False),
        ("tune", 4, False),
        ("tune", 6, True),
        ("evaluate", best, True),
    ]
    totals = [total for *_, total in asked]
    assert len(set(totals[:3])) == 3
    assert totals[3] == totals[1]  # the weights of step 4 again
    weights = {part: read_snapshot(tmp_path / part).part("model") for part in (BEST, LAST)}
    assert sum(float(tensor.double().sum()) for tensor in weights[BEST].values()) == pytest.approx(totals[1])
    assert any(not torch.equal(tensor, weights[LAST][key]) for key, tensor in weights[BEST].items())
    assert (outcome.progress.best, outcome.progress.best_step) == (values[1], best)
    [record] = load_results(tmp_path / "results").records
    judged = TASKS.get(name).judged.name
    assert [m.value for m in record.measurements if m.metric.name == judged] == values[:3]
    assert [(m.value, m.step) for m in record.measurements if m.metric.name == f"{judged}/test"] == [(0.9, best)]


def test_a_recipe_that_is_measured_on_the_test_split_is_so_from_its_start(tmp_path, scripted):
    recipe = load_recipe("copy", TINY | {"measured_on": "evaluate", "task.evaluation_examples": 2})
    asked = scripted(TASKS.get("copy"), [0.3, 0.2, 0.4, 0.9])
    train_recipe(recipe, tmp_path)
    assert {split for split, *_ in asked} == {"evaluate"}


def test_the_seed_of_a_recipe_draws_its_model_its_batches_and_its_dropout(tmp_path, monkeypatch):
    """Each by itself: what a run with another seed changes, and what is drawn where."""
    recipe = load_recipe("copy", TINY | {"seed": 5, "task.evaluation_examples": 2})
    task, model = running.build(recipe)
    same = Transformer(model_config(recipe.model, task), seed=5)
    other = Transformer(model_config(recipe.model, task), seed=0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    seeds, drawn = [], []
    plain, numbers = TASKS.get("copy").batches, running.random_numbers

    def batches(self, seed, *rest, **options):
        seeds.append(seed)
        return plain(self, seed, *rest, **options)

    monkeypatch.setattr(TASKS.get("copy"), "batches", batches)
    monkeypatch.setattr(running, "random_numbers", lambda seed, rank: drawn.append((seed, rank)) or numbers(seed, rank))
    outcome = train_recipe(recipe, tmp_path)
    assert (seeds, drawn) == ([5], [(5, 0)])
    assert load_results(tmp_path / "results").records[0].seed == 5
    assert outcome.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_the_beam_of_a_recipe_is_what_its_test_decodes_with(tmp_path, monkeypatch):
    """Never before the end of training: interim scores are greedy."""
    data = {"numbers": 100, "held_out": 10, "interim_sentences": 2, "tokens": 300, "beam": 3, "length_penalty": 0.9}
    recipe = load_recipe(
        "translation", TINY | {"model.kind": "encoder-decoder"} | {f"task.{key}": value for key, value in data.items()}
    )
    asked, plain = [], translating.beam_search

    def noted(model, tokens, **options):
        asked.append((len(tokens), options["beam"], options["alpha"]))
        return plain(model, tokens, **options)

    monkeypatch.setattr(translating, "beam_search", noted)
    train_recipe(recipe, tmp_path)
    assert {(beam, alpha) for _, beam, alpha in asked} == {(3, 0.9)}
    assert sum(rows for rows, *_ in asked) == 20  # ten sentences at the end of training, ten in the test


@pytest.fixture
def trained():
    def make(name, kind, context=64, **options):
        recipe = Recipe(
            task={"name": name, **options},
            model=ModelSize(kind=kind, layers=1, width=16, heads=2, context=context),
            training=TrainingConfig(steps=1, batch=1),
        )
        task, model = running.build(recipe)
        return Trained(model.eval(), task.codec, recipe)

    return make


def test_translate_searches_with_the_beam_and_the_penalty_that_are_asked_for(trained, monkeypatch):
    model = trained("copy", "encoder-decoder")
    asked, plain = [], inference.beam_search

    def noted(model, tokens, **options):
        asked.append((options["beam"], options["alpha"], options["maximum"]))
        return plain(model, tokens, **options)

    monkeypatch.setattr(inference, "beam_search", noted)
    translate(model, "1 2 3", beam=3, alpha=0.9, maximum=7)
    assert asked == [(3, 0.9, 7)]


def test_generate_samples_as_it_is_asked_to(trained, monkeypatch):
    model = trained("text", "decoder", context=16)
    asked, plain = [], inference.sample

    def noted(model, tokens, *, generator, **options):
        asked.append((generator.initial_seed(), *(options[key] for key in ("temperature", "top_k", "top_p"))))
        return plain(model, tokens, generator=generator, **options)

    monkeypatch.setattr(inference, "sample", noted)
    generate(model, "net", 4, Sampling(temperature=0.6, top_k=9, top_p=0.8, seed=3))
    assert asked == [(3, 0.6, 9, 0.8)]


def test_the_defaults_of_a_beam_are_not_what_these_tests_ask_for():
    """Else a setting that is ignored would pass."""
    config = TranslationConfig()
    assert (config.beam, config.length_penalty) not in {(3, 0.9), (3, 0.7)}
