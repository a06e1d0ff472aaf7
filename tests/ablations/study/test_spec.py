"""Study files: what is right is read, what is wrong is named with its file, its key and the nearest right word."""

import itertools
from pathlib import Path

import pytest

from trans4init.ablations.errors import InputError
from trans4init.ablations.settings.numbers import LARGEST_SEED
from trans4init.ablations.study.grid import load_grid, load_study
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.spec import StudySpec, TuningSection, checked_name, shipped_studies, spec_hash
from trans4init.reports.machine import capture
from trans4init.reports.records.metrics import VALIDATION_LOSS
from trans4init.reports.records.schema import CellKey, Measurement


def shipped_specs():
    return [block.spec for name in shipped_studies() for block in load_grid(name).blocks]


def test_the_shipped_studies_are_valid():
    assert set(shipped_studies()) == {
        "cheapest-gelu",
        "error-budget",
        "first-look",
        "positional-text",
        "positional-text-full",
        "two-activations",
    }
    for name in shipped_studies():
        assert load_grid(name).name == name
    assert [name for name in shipped_studies() if len(load_grid(name).blocks) > 1] == ["two-activations"]


def test_shipped_studies_try_slot_rates_far_beyond_the_models_and_fit_a_net_for_each_run():
    tuned = [spec for spec in shipped_specs() if spec.tuning.space and spec.nets]
    assert tuned
    for spec in tuned:
        assert spec.tuning.space["slot_learning_rate_ratio"].high >= 10
        assert spec.tuning.seeds_per_trial >= 3
        assert spec.trials() >= 4
    with_trained_nets = [spec for spec in shipped_specs() if spec.nets]
    assert {spec.fit.seeds for spec in with_trained_nets} == {"per-run"}


def test_each_time_that_a_study_is_tuned_is_what_the_next_seed_of_tuning_would_be(tiny_study):
    twice = load_study(str(tiny_study()), tunings=2)
    other = load_study(str(tiny_study(("seeds_per_trial = 1", "seeds_per_trial = 1\nseed = 1"))))
    assert (twice.times_tuned(), other.times_tuned()) == (2, 1)
    assert list(twice.tuning_seeds(1)) == list(other.tuning_seeds()) != list(twice.tuning_seeds())
    once = load_study(str(tiny_study()))
    assert twice.conditions("f") == once.conditions("f")
    assert twice.training_runs() == 2 * once.training_runs()
    with pytest.raises(InputError, match="times"):
        load_study(str(tiny_study()), tunings=0)
    last = f"seeds_per_trial = 1\nseed = {LARGEST_SEED // 1000 - 2}"
    with pytest.raises(InputError, match=r"seed \+ times must be at most"):
        load_study(str(tiny_study(("seeds_per_trial = 1", last))), tunings=2)


def test_tuning_seeds_are_nobody_elses():
    """No two values of [tuning] seed share a seed of a run, with each other or with evaluation."""
    most = [TuningSection(seed=seed, seeds_per_trial=1000).seeds() for seed in (0, 1, 2, 17, 1000)]
    evaluation = range(999)  # as many as a study may have
    for one, other in itertools.combinations([evaluation, *most], 2):
        assert not set(one) & set(other)
    largest = TuningSection.model_json_schema()["properties"]["seed"]["maximum"]
    assert max(TuningSection(seed=largest, seeds_per_trial=1000).seeds()) <= LARGEST_SEED
    assert list(TuningSection().seeds()) == [1000, 1001, 1002]


def test_a_study_file_from_before_the_new_keys_is_read(tiny_study):
    spec = load_study(str(tiny_study(("seeds_per_trial = 1\ntrials = 2", "trials = 2\nseed = 1000"))))
    assert (spec.tuning.seeds_per_trial, spec.fit.seeds) == (3, "shared")
    assert list(spec.tuning_seeds()) == [1001000, 1001001, 1001002]
    assert spec.training_runs() == 5 * (2 * 3 + 2)


def test_what_a_study_judges_by_changes_no_run(tiny_study):
    """Margins and looks are stated in the card, and kept there; the runs are the same without them."""
    plain, stated = (
        load_study(str(tiny_study(("margin = 0.05", f"margin = 0.05{more}"))))
        for more in ("", "\nlooks = [1, 2]\nmargins = { validation_loss_4x = 0.1 }")
    )
    assert plain.conditions("data") == stated.conditions("data")
    card = ResolvedStudy(stated, "data", capture(), Path(), "c").card()
    assert (card.margins, card.looks) == ((("validation_loss_4x", 0.1),), (1, 2))
    assert card.words() == 2 * len(card.comparisons())


def test_the_spec_that_results_hold_is_a_study_again(tiny_study):
    spec = load_study(str(tiny_study(("[fit]\n", '[fit]\nseeds = "per-run"\n'))))
    assert StudySpec.model_validate(spec.model_dump(mode="json")) == spec


def test_the_full_study_is_the_public_recipe():
    spec = load_study("positional-text-full")
    assert (spec.model.layers, spec.model.heads, spec.model.width, spec.model.context) == (4, 4, 128, 64)
    assert (spec.training.batch, spec.training.steps) == (12, 2000)
    assert (spec.training.learning_rate, spec.training.final_learning_rate_ratio) == (1e-3, 0.1)
    assert (spec.task.source, spec.task.unit) == ("tinyshakespeare", "character")


def test_cells_are_every_arm_with_every_net_and_the_baselines(tiny_study):
    more = ("[fit]", '[[nets]]\nname = "siren"\n\n[fit]')
    assert load_study(str(tiny_study(more))).cells() == (
        CellKey("sinusoidal", "analytic"),
        CellKey("sinusoidal", "learned-frozen", "fourier-mlp"),
        CellKey("sinusoidal", "learned-frozen", "siren"),
        CellKey("sinusoidal", "learned-fine-tuned", "fourier-mlp"),
        CellKey("sinusoidal", "learned-fine-tuned", "siren"),
        CellKey("sinusoidal", "free-table"),
        CellKey("learned-table", "free-table"),
    )


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("steps = 6", "step = 6", "[training] unknown key 'step'; did you mean 'steps'?"),
        ("[training]", "[trainin]", "unknown key 'trainin'; did you mean 'training'?"),
        ("margin = 0.05", "margin = 0.05\ntrials = 2", "[evaluation] unknown key 'trials'; it belongs in [tuning]."),
        ("[[nets]]", "[nets]", "nets is a list of sections: head each with [[nets]], not with [nets]."),
        ('"free-table"]', "5]", "arms, item "),
        ("layers = 1\n", "", "[model] key 'layers' is missing: give a whole number from 1 to"),
        (
            "batch = 2",
            'batch = "two"',
            '[training] batch must be a whole number from 1 to 2,147,483,647, and "two" was given. What it',
        ),
        ("batch = 2", "batch = 0", "[training] batch must be a whole number from 1 to 2,147,483,647, and 0 was given."),
        ('"learned-frozen", ', '"learned-frosen", ', "unknown arm 'learned-frosen'; did you mean 'learned-frozen'?"),
        ('"analytic", ', "", "the arms must include 'analytic'"),
        ('"free-table"]', '"free-table", "analytic"]', "an arm is named twice"),
        ('arm = "free-table"', 'arm = "random-frozen"', "a baseline has no net, but arm 'random-frozen' needs one"),
        ("trials = 2", "trials = 2\nseed = -1", "[tuning] seed must be a whole number from 0 to"),
        (
            "seeds_per_trial = 1",
            "seeds_per_trial = 0",
            "[tuning] seeds_per_trial must be a whole number from 1 to 1,000, and 0",
        ),
        (
            "seeds_per_trial = 1",
            "seeds_per_trial = 1001",
            "seeds_per_trial must be a whole number from 1 to 1,000, and 1001",
        ),
        ("[fit]", '[fit]\nseeds = "per-run"\nseed = 3', "[fit] seed is that of a shared fit"),
        ("[fit]", '[fit]\nseeds = "each"', '[fit] seeds must be "shared" or "per-run", and "each" was given.'),
        ("low = 1e-3, high = 1e-1, log = true", "low = -1, high = 1", "learning_rate can't be -1: input should be"),
        ("high = 1e-1", "high = inf", "high must be a finite number, and inf was given."),
        ("margin = 0.05", "margin = inf", "[evaluation] margin must be a finite number above 0"),
        ('arm = "free-table"', 'arm = "fre-table"', "unknown arm 'fre-table'; did you mean 'free-table'?"),
        ("heads = 2", "heads = 3", "[model] width 8 can't be shared by 3 heads evenly."),
        (
            "margin = 0.05",
            "",
            "[evaluation] key 'margin' is missing: give a number above 0. What it means: differences smaller",
        ),
        ("margin = 0.05", "margin = 0", "[evaluation] margin must be a number above 0, and 0 was given."),
        (
            "margin = 0.05",
            "margin = 0.05\nmargins = { validation_loss_2 = 0.1 }",
            "[evaluation.margins] unknown metric 'validation_loss_2'; did you mean 'validation_loss_2x'?",
        ),
        ("margin = 0.05", "margin = 0.05\nmargins = { validation_loss = 0.1 }", "unknown metric 'validation_loss'"),
        ("margin = 0.05", "margin = 0.05\nmargins = { perplexity = 0.1 }", "unknown metric 'perplexity'"),
        ("margin = 0.05", "margin = 0.05\nlooks = [4, 1]", "looks must ascend, not [4, 1]"),
        ("margin = 0.05", "margin = 0.05\nlooks = [4, 8]", "seeds = 2 is none of the looks [4, 8]; the last is all"),
        ("seeds = 2", 'seeds = 2\nmetric = "validation_los"', "unknown metric 'validation_los'; did you mean"),
        ("low = 1e-3", "low = 1", "low must be less than high"),
        ("low = 1e-3", "low = 0", "a logarithmic range needs low > 0"),
        ("low = 1e-3", "low = 0.05", "learning_rate = 0.01 is outside its range in [tuning.space]"),
        ("[tuning.space]\nlearning_rate = { low = 1e-3, high = 1e-1, log = true }", "", "needs a [tuning.space]"),
        ("learning_rate = {", "learning_rat = {", "'learning_rat' can't be tuned; did you mean 'learning_rate'?"),
        ('source = "text.txt"', 'name = "txt"', "unknown task 'txt'; did you mean 'text'?"),
        ('[[nets]]\nname = "fourier-mlp"\nhidden = [8]\nfrequencies = 4', "", "arms with a net need at least one"),
        ("[fit]", "[fit", "is not valid TOML"),
    ],
)
def test_a_mistake_is_one_sentence_with_file_key_and_nearest_word(tiny_study, old, new, sentence):
    path = tiny_study((old, new))
    with pytest.raises(InputError) as caught:
        load_study(str(path))
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a/b", "a b", ".a", "-a", "ä", "a\n", "a" * 101])
def test_a_name_that_can_not_be_that_of_a_folder_is_refused_by_one_rule(name):
    with pytest.raises(ValueError, match="is made of at most 100 letters, digits, dots, hyphens and underscores"):
        checked_name(name)


@pytest.mark.parametrize(
    "name", ["Default", "default", "bench", "fit", "Train", "mlartifacts", "mlflow.db", "MLflow.db-wal"]
)
def test_a_name_that_something_else_has_is_refused_by_one_rule(name):
    with pytest.raises(ValueError, match=f"'{name}' is the name of something else"):
        checked_name(name)


@pytest.mark.parametrize("name", ["a", "0", "a.b-c_d", "fits", "mlflow", "a" * 100])
def test_other_names_are_kept(name):
    assert checked_name(name) == name


def test_a_refused_name_is_one_sentence_of_the_file_or_the_data(tiny_study, tmp_path):
    with pytest.raises(
        InputError, match=r"tiny\.toml: name: 'fit' is the name of something else .*; add a word to it\."
    ):
        load_study(str(tiny_study(('name = "tiny"', 'name = "fit"'))))
    (tmp_path / ("x" * 99)).write_text("text")
    with pytest.raises(InputError, match=r"--data .*: a study's name is made of .*; rename the file\."):
        load_study(str(tiny_study()), data=tmp_path / ("x" * 99))


def test_more_than_one_mistake_is_said_to_be_more(tiny_study):
    with pytest.raises(InputError, match=r"\(1 more after this\.\)"):
        load_study(str(tiny_study(("steps = 6", "step = 6"))))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("positional-txt", "unknown study 'positional-txt'; did you mean 'positional-text'?"),
        ("nowhere.toml", "there is no study file 'nowhere.toml'"),
        ("a/b", "there is no study file 'a/b'"),
        ("x" * 300, "unknown study 'xxx"),
    ],
)
def test_a_study_that_is_not_there(name, sentence):
    with pytest.raises(InputError, match=sentence):
        load_study(name)


def test_the_command_line_changes_seeds_trials_and_data(tiny_study, text_file):
    spec = load_study(str(tiny_study()), seeds=7, trials=5, data=text_file)
    assert (spec.evaluation.seeds, spec.tuning.trials) == (7, 5)
    assert spec.task.source == str(text_file)
    assert spec.name == "tiny-text"
    with pytest.raises(InputError, match=r"\[evaluation\] seeds"):
        load_study(str(tiny_study()), seeds=0)


def test_a_named_source_is_data_too(tiny_study):
    spec = load_study(str(tiny_study()), data=Path("tinyshakespeare"))
    assert (spec.task.source, spec.name) == ("tinyshakespeare", "tiny-tinyshakespeare")


@pytest.mark.parametrize(("section", "change"), [("evaluation", {"seeds": 3}), ("tuning", {"trials": 3})])
def test_a_value_where_a_section_should_be_is_named(tmp_path, section, change):
    (tmp_path / "s.toml").write_text(f"{section} = 3\n")
    with pytest.raises(InputError, match=rf"s\.toml: .*'{section}' is a value there, not a section"):
        load_study(str(tmp_path / "s.toml"), **change)


def test_a_text_in_the_study_is_beside_the_study(tiny_study, text_file, monkeypatch):
    path = tiny_study()
    monkeypatch.chdir("/")
    assert load_study(str(path)).task.source == str(text_file)


def test_conditions_leave_out_counts_and_wording_only(tiny_study):
    base = load_study(str(tiny_study()))
    same = [
        ("seeds = 2", "seeds = 9"),
        ("trials = 2", "trials = 9"),
        ("seeds_per_trial = 1", "seeds_per_trial = 4"),
        ("Does it run?", "Really?"),
        ("rounds = 2", "rounds = 3"),
    ]
    other = [("steps = 6", "steps = 7"), ("margin = 0.05", "margin = 0.06"), ("width = 8", "width = 16")]
    other += [("high = 1e-1", "high = 2e-1"), ("steps = 20", "steps = 21"), ("trials = 2", "trials = 2\nseed = 1")]
    other += [("[fit]\n", '[fit]\nseeds = "per-run"\n')]
    hash_of = {change: spec_hash(load_study(str(tiny_study(change))).conditions("f")) for change in (*same, *other)}
    mine = spec_hash(base.conditions("f"))
    assert {hash_of[change] for change in same} == {mine}
    assert len({mine, *(hash_of[change] for change in other)}) == 1 + len(other)
    assert spec_hash(base.conditions("g")) != mine


def test_results_name_a_users_files_but_not_their_folders(tiny_study, text_file):
    spec = load_study(str(tiny_study()))
    assert spec.public()["task"]["source"] == "text.txt"
    command = f"trans4init run {tiny_study()} --out {text_file.parent / 'out'}"
    study = ResolvedStudy(spec, "f", capture(), text_file.parent, command)
    error = f'File "{text_file}", line 1'
    record = study.record(study.fit_request("fourier-mlp"), [Measurement(VALIDATION_LOSS, None)], error=error)
    assert record.card.command == "trans4init run tiny.toml --out out"
    assert record.error == 'File "text.txt", line 1'
    assert study.command == command  # what is printed to go on with
    assert str(text_file.parent) not in str(record)


def test_a_target_is_stated_and_changes_no_run(tiny_study):
    plain = load_study(str(tiny_study()))
    path = tiny_study(("margin = 0.05", 'margin = 0.05\ntarget = { metric = "validation_loss", value = 2 }'))
    spec = load_study(str(path))
    assert (spec.evaluation.target.metric, spec.evaluation.target.value) == ("validation_loss", 2.0)
    assert spec.conditions("f") == plain.conditions("f")
    assert ResolvedStudy(spec, "f", capture(), path.parent, "again").card().target == ("validation_loss", 2.0)
    assert ResolvedStudy(plain, "f", capture(), path.parent, "again").card().target is None


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ('{ metric = "validation_los", value = 2 }', r"\[evaluation.target\] unknown metric 'validation_los'; did you"),
        ('{ metric = "perplexity", value = 2 }', r"\[evaluation.target\] unknown metric 'perplexity'"),  # not judged
        ('{ metric = "validation_loss" }', r"\[evaluation.target\] key 'value' is missing"),
    ],
)
def test_a_target_that_no_run_could_reach_is_refused(tiny_study, target, message):
    path = tiny_study(("margin = 0.05", f"margin = 0.05\ntarget = {target}"))
    with pytest.raises(InputError, match=message):
        load_study(str(path))
