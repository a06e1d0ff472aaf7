"""Generated and public data: what is tested is never trained on, and the generated ones are what they claim to be."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from trans4init.ablations.data.classification import ClassificationConfig, labelled_texts
from trans4init.ablations.data.modular import ModularConfig, split_table, whole_table
from trans4init.ablations.data.pairs import END, SEPARATOR, SPECIALS
from trans4init.ablations.data.scan import ScanConfig, commands, scan_pairs
from trans4init.ablations.data.sequences import AdditionConfig, CopyConfig, ReverseConfig, SortConfig
from trans4init.ablations.data.translation import TranslationConfig, sentence_pairs
from trans4init.ablations.errors import InputError
from trans4init.ablations.tasks.base import IGNORED
from trans4init.ablations.tasks.classification import Classification
from trans4init.ablations.tasks.images import Images, ImagesConfig
from trans4init.ablations.tasks.sequences import Addition, Sort

CPU = torch.device("cpu")
HELD_OUT = ("tune", "evaluate")
FOLDER = os.environ.get("TRANS4INIT_DATA")
needs_data = pytest.mark.skipif(FOLDER is None or not Path(FOLDER, "scan").is_dir(), reason="public data not at hand")


@pytest.mark.parametrize("config", [CopyConfig(), ReverseConfig(), SortConfig(), AdditionConfig()])
def test_what_is_tested_is_never_trained_on(config):
    for length in (config.shortest, config.longest):
        drawn = config.examples(np.full(3000, length), np.random.default_rng(0), None).sources
        trained = {tuple(one) for one in drawn}
        tune, evaluate = ({tuple(one) for one in config.held_out(split, length).sources} for split in HELD_OUT)
        assert not trained & tune
        assert not trained & evaluate
        assert not tune & evaluate
        assert len(trained) > 0.5 * min(len(drawn), config.inputs_of_length(length))  # and all else is trained on


def test_targets_are_right():
    source = [3, 1, 2]
    assert CopyConfig().target(source) == [3, 1, 2]
    assert ReverseConfig().target(source) == [2, 1, 3]
    assert SortConfig().target(source) == [1, 2, 3]
    plus = [9, 5, 10, 0, 7]
    assert AdditionConfig().target(plus) == [1, 0, 2]
    assert AdditionConfig(reversed=True).target(plus) == [2, 0, 1]


def test_a_decoder_predicts_the_target_alone_and_an_encoder_decoder_gets_both_apart():
    decoder = next(Sort(SortConfig(shortest=3, longest=3), 32, CPU).batches(0, 1, "tune"))
    *source, separator = decoder.inputs[0, :4].tolist()
    assert separator == SEPARATOR
    assert decoder.targets[0].tolist() == [IGNORED] * 3 + [*sorted(source), END]
    assert decoder.inputs[0, 4:].tolist() == sorted(source)
    both = next(Sort(SortConfig(shortest=3, longest=3), 32, CPU, "encoder-decoder").batches(0, 1, "tune"))
    assert both.source[0].tolist() == [*source, END]
    assert both.targets[0].tolist() == [*sorted(source), END]
    assert both.inputs[0, 1:].tolist() == sorted(source)


def test_padding_is_no_target():
    batch = next(Sort(SortConfig(), 48, CPU, "encoder-decoder").batches(0, 32, "tune"))
    assert batch.predictions() == int(batch.lengths.sum())
    for row, length in enumerate(batch.lengths.tolist()):
        assert set(batch.targets[row, length:].tolist()) <= {IGNORED}


def test_sequences_longer_than_the_context_are_refused_with_the_length_they_need():
    with pytest.raises(InputError, match=r"\[model\] context must be 15 or more"):
        Addition(AdditionConfig(), 8, CPU)
    Addition(AdditionConfig(), 15, CPU)


def test_the_grammar_has_scans_20910_commands():
    assert len(commands()) == 20910
    actions = dict(commands())
    assert actions["jump opposite left after walk around left"].split() == (
        ["I_TURN_LEFT", "I_WALK"] * 4 + ["I_TURN_LEFT", "I_TURN_LEFT", "I_JUMP"]
    )
    assert actions["turn around right thrice"] == " ".join(["I_TURN_RIGHT"] * 12)


@pytest.mark.parametrize("split", ["simple", "length"])
def test_scan_splits_share_nothing(split):
    parts = scan_pairs(ScanConfig(split=split))
    inputs = {part: {command for command, _ in rows} for part, rows in parts.items()}
    assert sum(map(len, inputs.values())) == 20910 == len(set.union(*inputs.values()))
    if split == "length":
        assert max(len(actions.split()) for part in ("training", "tune") for _, actions in parts[part]) == 22
        assert min(len(actions.split()) for _, actions in parts["evaluate"]) == 24


@needs_data
def test_the_grammar_is_the_published_one():
    public = [scan_pairs(ScanConfig(source="public", split=split)) for split in ("simple", "length")]
    for parts in public:
        assert {pair for rows in parts.values() for pair in rows} == set(commands())
    assert set(public[1]["evaluate"]) == set(scan_pairs(ScanConfig(split="length"))["evaluate"])


@pytest.mark.parametrize("operation", ["+", "-", "*", "/", "x2+y2"])
def test_the_modular_table_holds_every_pair(operation):
    config = ModularConfig(operation=operation, modulus=13)
    table = whole_table(config)
    assert len({(a, b) for a, b, _ in table.tolist()}) == len(table) == 13 * (12 if operation == "/" else 13)
    for a, b, result in table.tolist():
        if operation == "/":
            assert result * b % 13 == a
        else:
            right = {"+": a + b, "-": a - b, "*": a * b, "x2+y2": a * a + b * b}[operation]
            assert result == right % 13


def test_the_modular_table_is_split_without_overlap():
    parts = split_table(ModularConfig(modulus=31, fraction=0.5), 0)
    rows = [tuple(row) for part in parts.values() for row in part.tolist()]
    assert len(rows) == len(set(rows)) == 31 * 31
    assert len(parts["training"]) == round(0.5 * 31 * 31)
    with pytest.raises(ValueError, match="91 is not a prime: 7 divides it"):
        ModularConfig(modulus=91)


def test_number_words_are_split_without_overlap():
    parts = sentence_pairs(TranslationConfig(numbers=300, held_out=50))
    assert {part: len(rows) for part, rows in parts.items()} == {"training": 300, "tune": 50, "evaluate": 50}
    assert len({pair for rows in parts.values() for pair in rows}) == 400
    assert ("siebzehn", "seventeen") in {pair for rows in parts.values() for pair in rows}


@needs_data
def test_multi30k_has_its_published_sizes():
    parts = sentence_pairs(TranslationConfig(source="multi30k"))
    assert {part: len(rows) for part, rows in parts.items()} == {"training": 29000, "tune": 1014, "evaluate": 1000}
    assert parts["training"][0][0].startswith("Zwei junge weiße Männer")
    assert parts["training"][0][1].startswith("Two young, White males")


@needs_data
def test_sst2_has_its_published_sizes():
    parts = labelled_texts(ClassificationConfig(source="sst2"))
    assert {part: len(rows) for part, rows in parts.items()} == {"training": 6920, "tune": 872, "evaluate": 1821}
    assert {label for _, label in parts["training"]} == {"0", "1"}


def table(folder, rows=60, header="review,stars", name="mine.csv"):
    path = folder / name
    lines = [f'"text, number {row % 7}",{"good" if row % 3 else "bad"}' for row in range(rows)]
    path.write_text("\n".join([header, *lines]))
    return path


def test_a_table_of_the_users_is_split_and_labelled(tmp_path):
    config = ClassificationConfig(source=str(table(tmp_path)), text_column="review", label_column="stars")
    parts = labelled_texts(config)
    assert {part: len(rows) for part, rows in parts.items()} == {"training": 48, "tune": 6, "evaluate": 6}
    task = Classification(config, 32, CPU)
    assert task.labels == ["bad", "good"]
    assert task.model_fields["classes"] == 2
    batch = next(task.batches(0, 48, "tune"))
    assert batch.targets.float().mean() == pytest.approx(2 / 3, abs=0.1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"text_column": "revew"}, "unknown column 'revew'; did you mean 'review'?"),
        ({"label_column": "class"}, "unknown column 'class'; "),
        ({"source": "missing.csv"}, "missing.csv can't be read: No such file"),
        ({"source": "notes.docx"}, "source 'notes.docx' is neither a .csv or .tsv file"),
        ({"source": "sst3"}, "did you mean 'sst2'?"),
        ({"source": "empty.csv"}, "empty.csv is empty: its first line must name the columns"),
        ({"label_column": "review"}, "is so rare that it occurs in no row"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_in_a_sentence(tmp_path, options, sentence):
    path = table(tmp_path)
    path.write_text(path.read_text() + "\nonly once,bad" * 3)
    config = {"source": str(path), "text_column": "review", "label_column": "stars"} | options
    if config["source"] == "empty.csv":
        config["source"] = str(tmp_path / "empty.csv")
        Path(config["source"]).write_text("")
    if "label_column" in options and options["label_column"] == "review":
        path.write_text("review,stars\n" + "\n".join(f"text {row},x" for row in range(40)))
    with pytest.raises(InputError) as caught:
        labelled_texts(ClassificationConfig(**config))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_as_excel_saves_it_is_read(tmp_path):
    path = table(tmp_path)
    plain = labelled_texts(ClassificationConfig(source=str(path), text_column="review", label_column="stars"))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    again = labelled_texts(ClassificationConfig(source=str(path), text_column="review", label_column="stars"))
    assert again == plain


def test_a_table_with_too_few_rows_or_one_label_is_refused(tmp_path):
    config = ClassificationConfig(source=str(table(tmp_path, rows=5)), text_column="review", label_column="stars")
    with pytest.raises(InputError, match="has 5 rows with a text and a label; at least 20 are needed"):
        labelled_texts(config)
    Path(config.source).write_text("review,stars\n" + "a,good\n" * 40)
    with pytest.raises(InputError, match="has one label only"):
        labelled_texts(config)


def test_digits_are_split_by_class_without_overlap():
    task = Images(ImagesConfig(), 256, CPU)
    sizes = {part: len(labels) for part, labels in task._labels.items()}
    assert sizes == {"training": 1257, "tune": 180, "evaluate": 360}
    images = [image.tobytes() for part in task._images.values() for image in part]
    assert len(images) == 1797
    for part in task._labels.values():
        assert np.bincount(part).min() / len(part) == pytest.approx(0.1, abs=0.015)


def test_training_images_are_moved_by_at_most_a_pixel_and_anew_each_time():
    task = Images(ImagesConfig(), 256, CPU)
    [rows, seed] = next(task.plan(0, 16, "tune", "examples"))
    moved, again, other = (task.collate((rows, number)).inputs for number in (seed, seed, seed + 1))
    assert torch.equal(moved, again)
    assert not torch.equal(moved, other)
    still = torch.from_numpy(task._images["training"][rows])
    for one, image in zip(moved, still, strict=True):
        bordered = torch.nn.functional.pad(image, (1, 1, 1, 1), value=-0.5)
        places = itertools.product(range(3), range(3))
        assert any(torch.equal(one, bordered[:, down : down + 8, right : right + 8]) for down, right in places)


def test_codec_and_special_tokens_do_not_meet():
    task = Addition(AdditionConfig(), 32, CPU)
    batch = next(task.batches(0, 4, "tune"))
    assert int(batch.inputs.max()) < task.model_fields["vocabulary"] == 11 + SPECIALS


def test_the_parts_of_generated_data_are_those_that_published_results_were_measured_on():
    """The first example of each part, written down: parts that swap names or are drawn anew are other data."""
    words = sentence_pairs(TranslationConfig(numbers=150, held_out=12))
    assert {part: rows[0][1] for part, rows in words.items() if part != "training"} == {
        "tune": "thirty-one",
        "evaluate": "fifty-eight",
    }
    assert {part: rows[0] for part, rows in labelled_texts(ClassificationConfig()).items()} == {
        "tune": ("twenty-three", "en"),
        "evaluate": ("eight hundred and eighty-nine", "en"),
        "training": ("driehonderddrieëntwintig", "nl"),
    }
    assert {part: rows[0][0] for part, rows in scan_pairs(ScanConfig()).items()} == {
        "training": "walk",
        "tune": "walk around left thrice",
        "evaluate": "walk thrice",
    }
    assert {part: rows[0].tolist() for part, rows in split_table(ModularConfig(modulus=13), 0).items()} == {
        "training": [7, 7, 1],
        "tune": [9, 2, 11],
        "evaluate": [5, 9, 1],
    }
    assert {split: CopyConfig().held_out(split, 4).sources[0] for split in HELD_OUT} == {
        "tune": [3, 9, 5, 5],
        "evaluate": [9, 7, 3, 9],
    }
