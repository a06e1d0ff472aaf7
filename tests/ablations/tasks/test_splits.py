"""What each task touches: which examples it trains on, which it is measured on, and which column each number is in."""

import itertools

import numpy as np
import pytest
import torch

from trans4init.ablations.data.classification import ClassificationConfig, labelled_texts
from trans4init.ablations.data.modular import ModularConfig, split_table
from trans4init.ablations.data.pairs import SPECIALS
from trans4init.ablations.data.scan import ScanConfig, scan_pairs
from trans4init.ablations.data.sequences import AdditionConfig, CopyConfig
from trans4init.ablations.data.text import TextConfig
from trans4init.ablations.data.translation import TranslationConfig, sentence_pairs
from trans4init.ablations.settings.model import ModelSize
from trans4init.ablations.tasks import model_config
from trans4init.ablations.tasks import translation as translating
from trans4init.ablations.tasks.classification import Classification
from trans4init.ablations.tasks.images import Images, ImagesConfig
from trans4init.ablations.tasks.modular import ModularAddition
from trans4init.ablations.tasks.scan import Scan
from trans4init.ablations.tasks.sequences import Addition, Copy
from trans4init.ablations.tasks.text import TextTask
from trans4init.ablations.tasks.translation import Translation
from trans4init.ablations.transformer import Transformer
from trans4init.reports.records import metrics

CPU = torch.device("cpu")
SPLITS = ("tune", "evaluate")
SENTENCES = TranslationConfig(numbers=150, held_out=12, interim_sentences=4, beam=3, length_penalty=0.7)


def model_of(task, kind, **options):
    extra = {"image_size": 8, "patch": 4, "classes": 10} if kind == "image" else {}
    size = ModelSize(kind=kind, layers=1, width=8, heads=2, context=64, **extra, **options)
    return Transformer(model_config(size, task))


def examined(task, model, split):
    """The batches that an evaluation reads."""
    batches, plain = [], task.logits

    def noted(model, batch):
        batches.append(batch)
        return plain(model, batch)

    task.logits = noted
    try:
        task.evaluate(model, split, 1, final=False)
    finally:
        task.logits = plain
    return batches


def trained_on(task, split, count, size=32):
    return list(itertools.islice(task.batches(0, size, split), count))


def pairs_read(task, batches):
    """Source and target of every row, as text; of an encoder-decoder."""
    decode = task.codec.decode
    rows = [
        (source[: count - 1] - SPECIALS, target[target >= 0][:-1] - SPECIALS)
        for batch in batches
        for source, count, target in zip(batch.source, batch.source_lengths.tolist(), batch.targets, strict=True)
    ]
    return {(decode(source.tolist()), decode(target.tolist())) for source, target in rows}


PAIR_TASKS = [(Scan, ScanConfig(split="length"), scan_pairs), (Translation, SENTENCES, sentence_pairs)]


@pytest.mark.parametrize(("task_class", "config", "parts_of"), PAIR_TASKS)
def test_pairs_are_trained_and_measured_on_their_own_parts(task_class, config, parts_of):
    """Sources as sources and targets as targets."""
    task = task_class(config, 64, CPU, "encoder-decoder")
    parts = {part: set(rows[:60]) if part != "training" else set(rows) for part, rows in parts_of(config).items()}
    task._held_out = {split: pairs[:60] for split, pairs in task._held_out.items()}
    model = model_of(task, "encoder-decoder")
    for split in SPLITS:
        assert pairs_read(task, examined(task, model, split)) == parts[split]
        assert pairs_read(task, trained_on(task, split, 3)) <= parts["training"]


@pytest.mark.parametrize(("task_class", "config", "parts_of"), PAIR_TASKS)
def test_generated_is_what_the_model_makes_of_the_sources_of_the_split(task_class, config, parts_of):
    task = task_class(config, 64, CPU, "encoder-decoder")
    task._held_out = {split: pairs[:12] for split, pairs in task._held_out.items()}
    model = model_of(task, "encoder-decoder")
    for split in SPLITS:
        read, plain = [], task.generated
        task.generated = lambda model, pairs, *rest, read=read, plain=plain: (
            read.append(pairs) or plain(model, pairs, *rest)
        )
        task.evaluate(model, split, 1, final=True)
        task.generated = plain
        [pairs] = read
        assert [task.codec.decode(row) for row in pairs.sources] == [source for source, _ in parts_of(config)[split]][
            :12
        ]


def test_sequences_are_trained_on_inputs_that_no_split_holds():
    """Few enough inputs that the splits hold nearly all of theirs."""
    config = CopyConfig(symbols=6, shortest=3, longest=3, tested_longest=3, evaluation_examples=200)
    task = Copy(config, 16, CPU, "encoder-decoder")
    held = {split: {tuple(row) for row in config.held_out(split, 3).sources} for split in SPLITS}
    assert all(len(rows) > 15 for rows in held.values())
    trained = {source for source, _ in pairs_read(task, trained_on(task, "tune", 20))}
    assert len(trained) > 140
    assert not trained & {task.codec.decode(row) for rows in held.values() for row in rows}
    for split in SPLITS:
        read = {source for source, _ in pairs_read(task, examined(task, model_of(task, "encoder-decoder"), split))}
        assert read == {task.codec.decode(row) for row in held[split]}


class Graded(Addition):
    """Gives scores that tell lengths, splits, and given from generated apart."""

    def _grade(self, pairs, shift):
        [split] = [split for split in SPLITS if pairs.sources[0] in self.examples[split]]
        length = len(pairs.sources[0]) // 2
        if len({len(source) for source in pairs.sources}) > 1:
            length = 0
        right = {0: 9, 2: 1, 3: 2, 4: 3, 5: 5, 6: 7}[length] + (10 if split == "evaluate" else 0) + shift
        return np.arange(len(pairs)) < right

    def taught(self, model, pairs):
        right = self._grade(pairs, 0)
        return np.stack([np.full(len(pairs), 6.0), np.full(len(pairs), 4.0), right], axis=1)

    def generated_exactly(self, model, pairs):
        return self._grade(pairs, 20)


def test_each_length_has_its_own_columns_and_those_beyond_the_trained_are_together():
    config = AdditionConfig(evaluation_examples=50)
    task = Graded(config, 32, CPU)
    task.examples = {
        split: [row for length in config.lengths for row in config.held_out(split, length).sources] for split in SPLITS
    }
    for split, more in (("tune", 0), ("evaluate", 10)):
        scores = {m.metric.name: m.value for m in task.evaluate(None, split, 7, final=True)}
        expected = {"validation_loss": 6 / 4}
        for name, shift in (("exact_match", 0), ("generated_exact_match", 20)):
            expected[name] = (9 + more + shift) / 150
            right = {2: 1, 3: 2, 4: 3, 5: 5, 6: 7}
            expected |= {f"{name}/length_{length}": (r + more + shift) / 50 for length, r in right.items()}
            expected[f"{name}/beyond"] = (5 + 7 + 2 * (more + shift)) / 100
        assert scores == pytest.approx(expected)


def test_classification_reads_the_texts_and_labels_of_the_split():
    config = ClassificationConfig()
    task = Classification(config, 64, CPU)
    parts, model = labelled_texts(config), model_of(task, "encoder")

    def rows_of(batches):
        return {
            (task.codec.decode(tokens[:count].tolist()), task.labels[label])
            for batch in batches
            for tokens, count, label in zip(batch.inputs, batch.lengths.tolist(), batch.targets.tolist(), strict=True)
        }

    def short(rows):
        return {(task.codec.decode(task.codec.encode(text)[:64]), label) for text, label in rows}

    for split in SPLITS:
        assert rows_of(examined(task, model, split)) == short(parts[split])
        assert rows_of(trained_on(task, split, 3)) <= short(parts["training"])
    assert not set(parts["tune"]) & set(parts["evaluate"])


def test_the_majority_is_that_of_the_training_labels(tmp_path):
    """In the tested rows another label is the commonest."""
    path = tmp_path / "mine.csv"
    path.write_text("text,label\n" + "\n".join(f"text {n},{'often' if n % 3 else 'rare'}" for n in range(60)))
    task = Classification(ClassificationConfig(source=str(path)), 32, CPU)
    rare, often = task.labels.index("rare"), task.labels.index("often")
    row = task._rows["evaluate"][0][0]
    task._rows["evaluate"] = [(row, rare)] * 5 + [(row, often)]
    scores = {m.metric.name: m.value for m in task.evaluate(model_of(task, "encoder"), "evaluate", 1, final=True)}
    assert scores["majority_accuracy"] == pytest.approx(1 / 6)


def test_images_are_read_from_their_own_part():
    """180 to validate on, 360 to test, and never one of the training's."""
    task = Images(ImagesConfig(shift=False), 64, CPU, "image")
    model = model_of(task, "image")
    read = {split: examined(task, model, split)[0].inputs for split in SPLITS}
    assert {split: len(images) for split, images in read.items()} == {"tune": 180, "evaluate": 360}
    images = {split: {image.numpy().tobytes() for image in part} for split, part in read.items()}
    trained = {image.numpy().tobytes() for batch in trained_on(task, "tune", 40) for image in batch.inputs}
    assert len(trained) == 1257
    assert not trained & (images["tune"] | images["evaluate"])
    assert not images["tune"] & images["evaluate"]


@pytest.mark.parametrize("split", SPLITS)
def test_modular_columns_are_of_the_split_and_of_the_training_rows(split):
    config = ModularConfig(modulus=13)
    task, parts = ModularAddition(config, 3, CPU), split_table(config, 0)
    model = model_of(task, "decoder")
    held_out, training = examined(task, model, split)
    for batch, part in ((held_out, split), (training, "training")):
        rows = torch.cat([batch.inputs[:, :2], batch.targets], dim=1)
        assert {tuple(row) for row in rows.tolist()} == {tuple(row) for row in parts[part].tolist()}
    scores = {m.metric.name: m.value for m in task.evaluate(model, split, 1, final=False)}
    for batch, group in ((held_out, ""), (training, "/training")):
        logits = model(batch.inputs)[:, -1].double()
        loss = torch.nn.functional.cross_entropy(logits, batch.targets[:, 0]).item()
        assert scores[f"validation_loss{group}"] == pytest.approx(loss, rel=1e-5)
        right = (logits.argmax(-1) == batch.targets[:, 0]).double().mean().item()
        assert scores[f"accuracy{group}"] == pytest.approx(right)
    rows = torch.cat([b.inputs[:, :2] for b in trained_on(task, split, 20, size=16)])
    assert {tuple(row) for row in rows.tolist()} <= {tuple(row[:2]) for row in parts["training"].tolist()}


def test_the_modular_table_is_validated_on_a_fifth_of_what_is_left():
    sizes = {part: len(rows) for part, rows in split_table(ModularConfig(modulus=31, fraction=0.3), 0).items()}
    assert sizes == {"training": 288, "tune": 135, "evaluate": 538}


def test_a_text_is_read_where_its_split_is_and_trained_on_before_it(tmp_path):
    """A text of numbered lines: what is read says where it stood."""
    path = tmp_path / "text.txt"
    text = "".join(f"{n:07d}\n" for n in range(1000))
    path.write_text(text)
    task = TextTask(TextConfig(source=str(path), evaluation_tokens=500), 8, CPU)
    model = model_of(task, "decoder")
    for split, (first, last) in {"tune": (6800, 7200), "evaluate": (7200, 8000)}.items():
        for batch in examined(task, model, split):
            for window in torch.cat([batch.inputs, batch.targets[:, -1:]], dim=1):
                assert first <= text.find(bytes(window.tolist()).decode()) < last
        places = [
            text.find(bytes(window.tolist()).decode())
            for batch in trained_on(task, split, 40)
            for window in torch.cat([batch.inputs, batch.targets[:, -1:]], dim=1)
        ]
        assert first - 200 < max(places) <= first - 9


def test_longer_contexts_have_their_own_columns(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{n:07d}\n" for n in range(1000)))
    task = TextTask(TextConfig(source=str(path), evaluation_tokens=500), 8, CPU)
    task._mean_loss = lambda model, split, multiple: multiple + (10.0 if split == "evaluate" else 0.0)
    for split, more in (("tune", 0), ("evaluate", 10)):
        scores = {m.metric.name: m.value for m in task.evaluate(None, split, 1, final=True)}
        losses = {name: scores[name] for name in ("validation_loss", "validation_loss_2x", "validation_loss_4x")}
        assert losses == {
            "validation_loss": 1 + more,
            "validation_loss_2x": 2 + more,
            "validation_loss_4x": 4 + more,
        }
        assert scores["perplexity"] == pytest.approx(np.exp(1 + more))


@pytest.fixture
def translator():
    task = Translation(SENTENCES, 64, CPU, "encoder-decoder")
    return task, model_of(task, "encoder-decoder")


def test_the_final_test_decodes_with_the_beam_and_the_length_penalty_of_the_recipe(translator, monkeypatch):
    """The beam's translations are right, the greedy ones are not: the scores say which was measured."""
    task, model = translator
    asked, pairs = [], task.held_out("evaluate")
    right = dict(zip(map(tuple, pairs.sources), pairs.targets, strict=True))

    def perfect(model, tokens, *, source, source_lengths, maximum, end, beam, alpha, lengths):
        asked.append((beam, alpha))
        rows = [
            [token + SPECIALS for token in right[tuple((row[: count - 1] - SPECIALS).tolist())]]
            for row, count in zip(source, source_lengths.tolist(), strict=True)
        ]
        return type("Made", (), {"sequences": lambda self, end: rows})()

    monkeypatch.setattr(translating, "beam_search", perfect)
    final = {m.metric: m.value for m in task.evaluate(model, "evaluate", 1, final=True)}
    assert set(asked) == {(3, 0.7)}
    assert final[metrics.BLEU] == pytest.approx(100)
    assert final[metrics.GENERATED_EXACT_MATCH] == 1
    assert final[metrics.EXACT_MATCH] == 0
    asked.clear()
    interim = {m.metric: m.value for m in task.evaluate(model, "evaluate", 1, final=False)}
    assert asked == []
    assert interim[metrics.GENERATED_EXACT_MATCH] == 0
    assert interim[metrics.VALIDATION_LOSS] == final[metrics.VALIDATION_LOSS]


def test_a_recipe_without_a_beam_is_tested_greedily(monkeypatch):
    task = Translation(SENTENCES.model_copy(update={"beam": 1}), 64, CPU, "encoder-decoder")
    monkeypatch.setattr(translating, "beam_search", lambda *_, **__: pytest.fail("a beam was used"))
    task.evaluate(model_of(task, "encoder-decoder"), "evaluate", 1, final=True)


@pytest.mark.parametrize("split", SPLITS)
def test_bleu_is_of_all_sentences_at_the_end_and_of_a_few_before(translator, monkeypatch, split):
    """Made sentences first, right ones second; generated from the split's sources."""
    task, model = translator
    sentences, calls = sentence_pairs(SENTENCES)[split], []

    def translated(model, pairs, decode):
        return [f"{task.codec.decode(source)} made" for source in pairs.sources]

    monkeypatch.setattr(task, "translated", translated)
    monkeypatch.setattr(translating, "bleu", lambda made, right: calls.append((made, right)) or 12.5)
    for final, count in ((False, 4), (True, 12)):
        scores = {m.metric: m.value for m in task.evaluate(model, split, 1, final=final)}
        assert scores[metrics.BLEU] == 12.5
        assert calls.pop() == (
            [f"{source} made" for source, _ in sentences[:count]],
            [target for _, target in sentences[:count]],
        )


def test_both_languages_have_one_vocabulary_and_the_source_is_the_first():
    task = Translation(SENTENCES, 64, CPU, "encoder-decoder")
    source, target = sentence_pairs(SENTENCES)["training"][0]
    assert (task.codec.decode(task.training.sources[0]), task.codec.decode(task.training.targets[0])) == (
        source,
        target,
    )
    numbers = dict(sentence_pairs(TranslationConfig(numbers=300, held_out=50))["training"])
    assert numbers.get("siebzehn", "seventeen") == "seventeen"
    back = TranslationConfig(numbers=150, held_out=12, from_language="en", to_language="de")
    assert sentence_pairs(back)["training"] == [(b, a) for a, b in sentence_pairs(SENTENCES)["training"]]
