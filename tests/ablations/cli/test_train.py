"""`train`, `translate` and `generate` as a user meets them: plain about mistakes, from data to a model that is used."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from trans4init.ablations.cli.generate import Generate
from trans4init.ablations.cli.train import Train, _Stop, _value
from trans4init.ablations.cli.translate import Translate
from trans4init.ablations.errors import InputError
from trans4init.ablations.settings.model import TransformerConfig
from trans4init.ablations.training.checkpoint import read_snapshot, write_snapshot
from trans4init.ablations.training.distributed import Team
from trans4init.ablations.training.inference import Sampling, generate, translate
from trans4init.ablations.training.loop import DivergedError
from trans4init.ablations.training.recipe import load_recipe
from trans4init.ablations.training.run import load_trained, train_recipe
from trans4init.reports.records.store import load_results

SCRIPT = Path(sys.executable).with_name("trans4init")


def command(folder, *words, given=None):
    done = subprocess.run([SCRIPT, *words], cwd=folder, input=given, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"task": "copyy"}, "unknown recipe 'copyy'; did you mean 'copy'?"),
        ({"task": "missing.toml"}, "there is no recipe file 'missing.toml'"),
        ({"task": "copy", "preset": "tiny"}, "unknown preset 'tiny'; "),
        ({"task": "copy", "steps": 0}, "copy: [training] steps must be a whole number from 1 to "),
        (
            {"task": "copy", "set": (("training.lerning_rate=1",),)},
            "[training] unknown key 'lerning_rate'; did you mean",
        ),
        ({"task": "copy", "set": (("training.batch",),)}, "--set takes KEY=VALUE, such as training.batch=32"),
        ({"task": "copy", "set": (("task.symbol=3",),)}, "[task] unknown key 'symbol'; did you mean 'symbols'?"),
        ({"task": "copy", "set": (("task.longest=2",),)}, "lengths must be in order: shortest 3, longest 2"),
        ({"task": "copy", "set": (("model.heads=3",),)}, "width 64 can't be shared by 3 heads"),
        ({"task": "copy", "set": (("task.name=txt",),)}, "unknown task 'txt'; did you mean 'text'?"),
        (
            {"task": "copy", "set": (("seed.a=1",),), "seed": 2},
            "copy: 'seed.a' can't be set, since 'seed' is a value there, not a section",
        ),
        (
            {"task": "translation", "set": (("task.interim_sentences=0",),)},
            "interim_sentences must be a whole number of at least 1, and 0 was given.",
        ),
        ({"task": "copy", "data": Path("x.csv")}, "[task] unknown key 'source'"),
        (
            {"task": "modular-addition", "set": (("task.operation=%",),)},
            'operation must be "+", "-", "*", "/" or "x2+y2", and "%" was given.',
        ),
        (
            {"task": "translation", "set": (("task.to_language=xx",),)},
            "number-words has the languages de, en, es, fr, it, nl, not 'xx'",
        ),
    ],
)
def test_a_mistake_in_what_is_to_be_trained_is_one_sentence(options, sentence):
    with pytest.raises(InputError) as caught:
        Train(**options)._recipe()
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistake_ends_with_code_two(tmp_path):
    code, output, complaint = command(tmp_path, "train", "reverze")
    assert (code, output) == (2, "")
    assert complaint == "trans4init: unknown recipe 'reverze'; did you mean 'reverse'?\n"


def test_options_change_the_recipe():
    train = Train("copy", preset="toy", steps=7, seed=3, set=(("task.symbols=12", "training.schedule=constant"),))
    recipe = train._recipe()
    assert (recipe.model.layers, recipe.model.width, recipe.training.steps, recipe.seed) == (1, 128, 7, 3)
    assert (recipe.task.symbols, recipe.training.schedule) == (12, "constant")
    assert Train("classification", preset="toy")._recipe().model.kind == "encoder"  # a preset is a size, not a kind
    assert [_value(text) for text in ("3", "1e-3", "true", "rope", '"3"', "[1, 2]")] == [
        3,
        1e-3,
        True,
        "rope",
        "3",
        [1, 2],
    ]


def test_set_is_taken_with_several_keys_and_more_than_once():
    words = ["copy", "--set", "task.symbols=12", "training.batch=3", "--set", "model.position=rope"]
    recipe = tyro.cli(Train, args=words)._recipe()
    assert (recipe.task.symbols, recipe.training.batch, recipe.model.position) == (12, 3, "rope")


def test_a_recipe_of_the_users_finds_its_data_beside_it(tmp_path):
    path = tmp_path / "mine.toml"
    model = "[model]\nlayers = 1\nwidth = 8\nheads = 2\n[training]\nsteps = 1\nbatch = 1\n"
    path.write_text('[task]\nname = "text"\nsource = "poem.txt"\n' + model)
    assert load_recipe(str(path)).task.source == str(tmp_path / "poem.txt")
    assert load_recipe(str(path), {"task.source": "other.txt"}).task.source == str(Path("other.txt").absolute())


@pytest.mark.parametrize("preset", ["toy", "nano", "vit-tiny"])
def test_a_preset_is_a_size_of_what_the_recipe_trains(preset):
    model = Train("images", preset=preset)._recipe().model
    assert (model.kind, model.image_size, model.patch, model.classes) == ("image", 8, 2, 10)
    assert model.layers == TransformerConfig.preset(preset).layers


def test_from_a_table_of_the_users_to_its_test(tmp_path):
    """One command: training, lines at evaluations, the test beside the majority's score, files."""
    rows = [
        f"{'splendid' if n % 3 else 'dreadful'} film number {n % 11},{'up' if n % 3 else 'down'}" for n in range(120)
    ]
    (tmp_path / "reviews.csv").write_text("\n".join(["review,verdict", *rows]))
    words = ["train", "classification", "--data", "reviews.csv", "--text-column", "review", "--label-column", "verdict"]
    sizes = ["model.layers=1", "model.width=16", "training.evaluations=2", "training.warmup_steps=5"]
    code, output, complaint = command(tmp_path, *words, "--steps", "40", "--set", *sizes)
    assert code == 0, complaint
    assert re.search(r"step 20 of 40, \d+ s: training loss [\d.]+, validation loss [\d.]+, accuracy", output)
    assert re.search(r"accuracy +1\.0000", output)
    assert re.search(r"majority accuracy +0\.\d+", output)
    folder = tmp_path / "runs" / "train" / "classification"
    assert (folder / "best.safetensors").exists()
    [record] = load_results(folder / "results").records
    assert record.task == "classification"
    assert record.last("accuracy/test") == 1.0
    assert record.spec["task"]["source"] == "reviews.csv"
    code, _, complaint = command(tmp_path, *words[:-1], "verdcit")
    assert code == 2
    assert "unknown column 'verdcit'; did you mean 'verdict'?" in complaint


@pytest.fixture(scope="module")
def reversing(tmp_path_factory):
    """A model that reverses three symbols."""
    folder = tmp_path_factory.mktemp("reversing")
    changes = {"task.longest": 3, "task.tested_longest": 3, "model.layers": 2, "model.width": 32, "model.context": 16}
    training = {"steps": 250, "learning_rate": 1e-2, "warmup_steps": 20, "evaluations": 1}
    recipe = load_recipe("reverse", changes | {f"training.{key}": value for key, value in training.items()})
    train_recipe(recipe, folder)
    return folder


@pytest.fixture(scope="module")
def writing(tmp_path_factory):
    """A language model of one sentence, again and again."""
    folder = tmp_path_factory.mktemp("writing")
    (folder / "text.txt").write_text("the net is in the slot. " * 400)
    sizes = {"layers": 1, "width": 32, "context": 16}
    training = {"steps": 150, "learning_rate": 1e-2, "warmup_steps": 20, "evaluations": 1}
    changes = {"task.source": str(folder / "text.txt"), "task.unit": "character"}
    changes |= {f"model.{key}": value for key, value in sizes.items()}
    train_recipe(load_recipe("text", changes | {f"training.{key}": value for key, value in training.items()}), folder)
    return folder


def test_lines_are_translated_and_timed(tmp_path, reversing):
    code, output, timing = command(tmp_path, "translate", str(reversing), given="1 2 3\n7 0 4\n\n")
    assert code == 0
    assert output == "3 2 1\n4 0 7\n\n"
    assert re.fullmatch(r"(\d+ tokens in \d+\.\d\d s: \d+ tokens/s\n){3}", timing)


def test_a_line_that_can_not_be_spelled_is_refused(tmp_path, reversing):
    code, output, complaint = command(tmp_path, "translate", str(reversing), given="1 2 three\n")
    assert (code, output) == (2, "")
    assert complaint.startswith("trans4init: word 'three' is not among the 10 that the model knows")


@pytest.mark.parametrize(
    ("shell", "code", "sentence"),
    [
        ("printf '1 2\\xff\\n' | {0} translate {1}", 2, "trans4init: the line is not UTF-8 (after 3 characters).\n"),
        ("{0} translate {1} --text $(printf '\\377')", 2, "trans4init: the line is not UTF-8 (after 0 characters).\n"),
        ("{0} translate {1} <&-", 2, "trans4init: standard input is closed: there are no lines to read.\n"),
        ("{0} translate {1} --text '1 2' --length-penalty nan", 2, "trans4init: alpha must be a number of at least 0"),
    ],
)
def test_input_that_cannot_be_read_is_one_sentence(tmp_path, reversing, shell, code, sentence):
    words = shell.format(SCRIPT, reversing)
    done = subprocess.run(["bash", "-c", words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1


def test_a_reader_that_has_enough_ends_it_quietly(tmp_path, reversing):
    (tmp_path / "lines").write_text("1 2 3\n" * 2000)
    words = f"set -o pipefail; {SCRIPT} translate {reversing} --beam 1 <lines 2>errors | head -n 1"
    done = subprocess.run(["bash", "-c", words], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "3 2 1\n")
    assert "Traceback" not in (tmp_path / "errors").read_text()


def test_a_checkpoint_of_another_version_is_said(tmp_path, reversing):
    snapshot = read_snapshot(reversing / "best.safetensors")
    for header in (
        {},
        snapshot.header | {"model": {"layers": 1, "breadth": 4}},
        snapshot.header | {"codec": {"kind": "x"}},
    ):
        path = write_snapshot(tmp_path / "other.safetensors", header, model=snapshot.part("model"))
        with pytest.raises(InputError, match="was written by another version of this project: "):
            load_trained(path)


def test_a_text_is_gone_on_with_beyond_the_context(tmp_path, writing):
    """Sixty tokens by a model of context 16, from the command and the same from Python."""
    words = ["--prompt", "the net ", "--tokens", "60", "--temperature", "0"]
    code, output, timing = command(tmp_path, "generate", str(writing), *words)
    assert code == 0
    assert output.startswith("the net is in the slot. the net is in")
    assert len(output.rstrip("\n")) == 68
    assert re.fullmatch(r"60 tokens in \d+\.\d\d s: \d+ tokens/s\n", timing)
    assert "the net " + generate(load_trained(writing), "the net ", 60, Sampling(0)) == output.rstrip("\n")


def test_the_same_seed_writes_the_same_text(writing):
    trained = load_trained(writing)
    texts = [generate(trained, "the ", 40, Sampling(2.0, seed=seed)) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert generate(trained, "the ", 40, Sampling(2.0, top_k=1)) == generate(trained, "the ", 40, Sampling(0))
    assert len(generate(trained, "", 5, Sampling())) == 5


def test_a_model_is_used_for_what_it_was_trained_on(reversing, writing):
    with pytest.raises(InputError, match="trained on task reverse; generate is for task text"):
        generate(load_trained(reversing), "1 2", 5, Sampling())
    with pytest.raises(InputError, match="trained on task text; translate is for tasks of pairs"):
        translate(load_trained(writing), "the", beam=1, alpha=0.0, maximum=5)


def test_a_model_without_positions_for_its_test_is_one_sentence_and_translates_as_far_as_it_can(tmp_path):
    sizes = ["context=32", "layers=1", "width=8", "heads=2", "feed_forward=8", "position=learned-table"]
    words = [*(f"model.{size}" for size in sizes), "training.evaluations=1", "training.batch=4"]
    code, _, complaint = command(tmp_path, "train", "scan-length", "--steps", "1", "--set", *words)
    assert code == 2
    assert complaint.startswith("trans4init: the model has no positions for what is tested: the table covers 0..31")
    assert complaint.count("\n") == 1
    lengths = [f"task.{name}=3" for name in ("shortest", "longest", "tested_longest")]
    words = [*words[1:], "model.context=5", "task.evaluation_examples=2", *lengths]
    code, _, complaint = command(
        tmp_path, "train", "copy", "--steps", "1", "--set", "model.kind=encoder-decoder", *words
    )
    assert (code, complaint) == (0, "")
    code, *_ = command(tmp_path, "translate", "runs/train/copy", "--text", "1 2 3", "--maximum", "100")
    assert code == 0


@pytest.mark.parametrize(("position", "arm"), [("learned-table", "free-table"), ("alibi", "analytic")])
def test_a_run_that_diverges_is_a_row_too_and_every_row_says_what_was_in_the_slot(tmp_path, position, arm):
    sizes = {"task.longest": 3, "task.tested_longest": 3, "model.layers": 1, "model.width": 8, "model.context": 9}
    changes = sizes | {"model.heads": 2, "model.position": position, "task.evaluation_examples": 2}
    changes |= {"training.steps": 5, "training.evaluations": 1, "training.log_every": 1, "training.threads": 1}
    wild = {"training.learning_rate": 1e30, "training.clip": 1e30, "training.warmup_steps": 1}
    with pytest.raises(DivergedError):
        train_recipe(load_recipe("copy", changes | wild), tmp_path)
    [record] = load_results(tmp_path / "results").records
    assert (record.status, record.cell.arm) == ("diverged", arm)
    assert "is nan at step" in record.error
    assert record.last("training_loss") is not None
    [lost] = [m for m in record.measurements if m.metric.name == "validation_loss"]
    assert lost.value is None
    train_recipe(load_recipe("copy", changes), tmp_path / "tame")
    [record] = load_results(tmp_path / "tame" / "results").records
    assert (record.status, record.cell.arm) == ("ok", arm)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (Translate(Path("nowhere")), "there is no checkpoint nowhere"),
        (Generate(Path("nowhere")), "there is no checkpoint nowhere"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_said(wanted, sentence):
    with pytest.raises(InputError, match=sentence):
        wanted.run("")


def test_a_signal_stops_training_after_its_step_and_a_second_one_at_once(capfd, interruptible):
    with _Stop(Team()) as stop:
        assert not stop()
        signal.raise_signal(signal.SIGINT)
        assert (stop(), stop.number) == (True, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr().err == "Stopping after this step; Ctrl-C once more stops at once.\n"


def test_before_the_first_step_a_signal_stops_at_once_unless_a_team_waits(interruptible):
    with pytest.raises(KeyboardInterrupt), _Stop(Team()):
        signal.raise_signal(signal.SIGINT)
    with _Stop(Team(rank=1, size=2)) as stop:
        signal.raise_signal(signal.SIGTERM)
        assert (stop(), stop.number) == (True, signal.SIGTERM)
