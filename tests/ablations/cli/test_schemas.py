"""The JSON schemas accept what the loader accepts, refuse what it refuses, and say what every key means."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from trans4init.ablations.cli.keys import markdown, sections
from trans4init.ablations.cli.run import Run
from trans4init.ablations.cli.schemas import recipe_schema, study_file_schema, study_schema
from trans4init.ablations.cli.train import Train
from trans4init.ablations.errors import InputError
from trans4init.ablations.nets import list_nets, net_class
from trans4init.ablations.settings.meanings import first_sentence, meanings
from trans4init.ablations.settings.toml_file import shipped_files
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.study.sections import EvaluationSection
from trans4init.ablations.study.tuning_section import TuningSection
from trans4init.ablations.training.recipe import Recipe, load_recipe

ROOT = Path(__file__).resolve().parents[3]
SCHEMAS = {"studies": study_schema(), "recipes": recipe_schema()}
OF_FILES = {"studies": study_file_schema(), "recipes": recipe_schema()}
CHECKS = {kind: Draft202012Validator(schema) for kind, schema in OF_FILES.items()}
FIRST_LOOK = (ROOT / "ablations/studies/first-look.toml").read_text()
COPY = (ROOT / "ablations/recipes/copy.toml").read_text()


def is_valid(kind, text):
    return CHECKS[kind].is_valid(tomllib.loads(text))


def replaced(text, old, new):
    assert text.count(old) >= 1, old
    return text.replace(old, new, 1)


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_schema_is_of_the_draft_that_it_names(kind):
    assert SCHEMAS[kind]["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    Draft202012Validator.check_schema(SCHEMAS[kind])
    Draft202012Validator.check_schema(OF_FILES[kind])


@pytest.mark.parametrize(
    ("kind", "path"),
    [(kind, path) for kind in SCHEMAS for path in shipped_files(kind).values()],
    ids=lambda value: getattr(value, "stem", value),
)
def test_every_shipped_file_is_valid(kind, path):
    errors = CHECKS[kind].iter_errors(tomllib.loads(path.read_text()))
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


def test_the_study_in_the_readme_is_valid():
    (study,) = re.findall(r"```toml\n(# my-study\.toml\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert is_valid("studies", study)


def test_lists_that_make_a_grid_cells_and_parents_are_valid():
    grid = replaced(FIRST_LOOK, 'function = "sinusoidal"', 'function = ["sinusoidal", "rope"]')
    grid = replaced(replaced(grid, "[model]", "[[model]]"), "frequencies = 8", "frequencies = [4, 8]")
    assert is_valid("studies", grid)
    assert not is_valid("studies", replaced(grid, '"rope"]', '"rop"]'))
    assert not is_valid("studies", replaced(grid, "frequencies = [4, 8]", "frequencies = [4, 0]"))
    assert is_valid("studies", f'{FIRST_LOOK}\n[[cell]]\narm = "none"\ntraining.steps = 100')
    child = 'extends = "first-look"\nname = "longer"\n[training]\nsteps = 400'
    assert is_valid("studies", child)
    assert not is_valid("studies", replaced(child, "[training]", "[trainings]"))


MISTAKES = [
    ("steps = 200", "stpes = 200"),
    ("steps = 200", "steps = 0"),
    ("steps = 200", "steps = 2.5"),
    ("steps = 200", 'steps = "many"'),
    ("[throughput]", "[thruput]"),
    ('"free-table"', '"free-tabel"'),
    ('"analytic", ', ""),
    ('name = "text"', 'name = "txt"'),
    ('unit = "byte"', 'unit = "bytes"'),
    (
        'name = "text"\nsource = "python-stdlib"\nunit = "byte"\nevaluation_tokens = 4096',
        'name = "copy"\nunit = "byte"',
    ),
    ('metric = "validation_loss"', 'metric = "validation_lss"'),
    ('metric = "validation_loss"', 'metric = "bleu"'),
    ("validation_loss_4x = 0.1", "validation_lss_4x = 0.1"),
    ("validation_loss_4x = 0.1", "validation_loss_4x = -0.1"),
    ("seeds = 9", "seeds = 1000"),
    ("seeds = 9", 'seeds = 9\ntarget = { metric = "bleu", value = 1 }'),
    ("learning_rate = { low", "learning_rat = { low"),
    ("low = 4e-3, ", ""),
    ("[[nets]]", "[nets]"),
    ('question = """', 'questions = """'),
    ("context = 32", "context = 32\n[error_budget]\nsharpened = [2]"),
]
UNKNOWN_UNTIL_TORCH_IS_THERE = [
    ('function = "sinusoidal"', 'function = "sinusodial"'),
    ("frequencies = 8", "frequencis = 8"),
    ("frequencies = 8", "frequencies = 0"),
    ('name = "fourier-mlp"', 'name = "fourier-mpl"'),
    ("context = 32", 'context = 32\nposition = "rop"'),
    ("context = 32", 'context = 32\nactivation = "rope"'),
]
"""Mistakes in names of functions and nets, which loading a study leaves to those who import torch."""


@pytest.mark.parametrize(("old", "new"), [*MISTAKES, *UNKNOWN_UNTIL_TORCH_IS_THERE])
def test_a_mistake_in_a_study_is_refused(old, new):
    assert is_valid("studies", FIRST_LOOK)
    assert not is_valid("studies", replaced(FIRST_LOOK, old, new))


@pytest.mark.parametrize(("old", "new"), MISTAKES)
def test_the_loader_refuses_what_the_schema_refuses(tmp_path, old, new):
    (tmp_path / "study.toml").write_text(replaced(FIRST_LOOK, old, new))
    with pytest.raises(InputError):
        load_study(str(tmp_path / "study.toml"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "copy"', 'name = "coppy"'),
        ('name = "copy"', ""),  # a task without a name is a text
        ('name = "copy"', 'name = "copy"\nsource = "x"'),
        ("layers = 3", ""),
        ("layers = 3", "layers = -3"),
        ('position = "rope"', 'position = "gelu"'),
        ("[training]", '[evaluation]\nmetric = "exact_match"\n[training]'),
    ],
)
def test_a_mistake_in_a_recipe_is_refused(old, new):
    text = COPY + "symbols = 3\n" if new == "" else COPY
    assert is_valid("recipes", COPY)
    assert not is_valid("recipes", replaced(text, old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('function = "sinusoidal"', 'function = "my/own.py:wave"'),
        ('"free-table"', '"own.py:arm"'),
        ('name = "fourier-mlp"', 'name = "own.py:net"'),
        ('name = "text"', 'name = "own.py:task"\nanything = 3'),
        ('name = "text"\n', ""),
        ('name = "text"\nsource = "python-stdlib"\nunit = "byte"\nevaluation_tokens = 4096', 'source = "my.txt"'),
        ("context = 32", 'context = 32\nposition = "own.py:turn"'),
        ("seeds = 9", "seeds = 9\nlooks = [3, 9]"),
        ("learning_rate = 1.6e-2", "learning_rate = 1"),
    ],
)
def test_what_lies_in_a_file_of_the_users_and_what_may_be_left_out_is_accepted(old, new):
    assert is_valid("studies", replaced(FIRST_LOOK, old, new))


@pytest.mark.parametrize(
    ("metric", "valid"),
    [
        ("exact_match/length_31", True),
        ("exact_match/beyond", True),
        ("exact_match/length_", False),
        ("accuracy", False),
    ],
)
def test_a_metric_of_any_length_is_a_sequence_tasks(metric, valid):
    text = re.sub(r"\[task\].*?\[model\]", '[task]\nname = "reverse"\n[model]', FIRST_LOOK, flags=re.DOTALL)
    text = text.replace("validation_loss_4x = 0.1", "").replace('metric = "validation_loss"', f'metric = "{metric}"')
    assert is_valid("studies", text) == valid


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_key_has_a_meaning_and_says_what_it_takes(kind):
    for section in sections(SCHEMAS[kind]):
        assert section.meaning, section.heading
        for key in section.keys:
            assert key.meaning.endswith((".", "…")), (section.heading, key)
            assert key.values not in ("", "any value"), (section.heading, key)
            assert "None" not in key.meaning, (section.heading, key)  # a file has no None


def test_the_keys_are_those_of_the_settings_with_their_defaults():
    found = {section.heading: {key.name: key for key in section.keys} for section in sections(SCHEMAS["studies"])}
    assert set(found["[training]"]) == set(TrainingConfig.model_fields)
    assert found["[training]"]["beta2"].default == "0.99"
    assert found["[training]"]["steps"].default == "required"
    assert found["[evaluation]"]["seeds"].values == "a whole number from 1 to 999"
    assert set(found["[tuning.space.KEY]"]) == {"low", "high", "log", "step", "choices"}
    for net in list_nets():
        assert set(found[f'[[nets]] with name = "{net}"']) == {"name", "label", *net_class(net).Size.model_fields}
    assert "[256], and [32] in place of" in found['[[nets]] with name = "fourier-mlp"']["hidden"].meaning


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_page_of_keys_is_current(kind):
    command = f"trans4init ls {kind} --keys --markdown"
    page = (ROOT / "ablations" / kind / "README.md").read_text()
    assert page == markdown(SCHEMAS[kind], command), f"{command} > ablations/{kind}/README.md"


def test_the_command_prints_them(run_command):
    for words, kind in ((["--schema"], "studies"), (["--schema", "recipes"], "recipes")):
        code, output = run_command("ls", *words)
        assert (code, json.loads(output)) == (0, OF_FILES[kind])
    code, output = run_command("ls", "--keys", COLUMNS="200")
    assert code == 0
    for section in sections(SCHEMAS["studies"]):
        assert section.heading in output
        assert all(f"\n{key.name} " in output for key in section.keys)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["arms", "--schema"], "--keys and --schema are for studies or recipes, not for arms."),
        (["--schema", "--keys"], "--schema prints JSON: leave out --keys and --markdown."),
    ],
)
def test_lists_that_have_no_keys_are_refused(run_command, words, sentence):
    assert run_command("ls", *words) == (2, f"trans4init: {sentence}\n")


def test_options_that_set_a_key_say_what_the_key_means():
    run, train = meanings(Run), meanings(Train)
    pairs = (
        (run["seeds"], meanings(EvaluationSection)["seeds"]),
        (run["trials"], meanings(TuningSection)["trials"]),
        (run["tunings"], meanings(TuningSection)["times"]),
        (train["steps"], meanings(TrainingConfig)["steps"]),
        (train["seed"], meanings(Recipe)["seed"]),
    )
    for option, key in pairs:
        assert first_sentence(option) == first_sentence(key)


def test_a_value_out_of_range_is_answered_with_range_and_meaning():
    with pytest.raises(InputError) as caught:
        load_recipe("copy", {"training.beta2": 1.5})
    assert str(caught.value) == (
        "copy: [training] beta2 must be a number above 0 and below 1, and 1.5 was given. What it means: share of "
        "AdamW's running mean of squared gradients that a step keeps."
    )
