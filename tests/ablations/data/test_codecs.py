"""Codecs: every text comes back, byte pairs come from the training split alone, and what is kept is the same file."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trans4init.ablations.data.bpe import learn_bpe
from trans4init.ablations.data.classification import ClassificationConfig, labelled_texts
from trans4init.ablations.data.codec import ByteCodec, CharacterCodec, WordCodec, codec_from_json
from trans4init.ablations.data.translation import TranslationConfig
from trans4init.ablations.errors import FaultError, InputError
from trans4init.ablations.tasks import classification, translation
from trans4init.ablations.tasks.classification import Classification
from trans4init.ablations.tasks.translation import Translation

TEXTS = ["ein Hund läuft über die Wiese", "two dogs run over the grass", "zwei Hunde laufen"] * 20


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    return learn_bpe(TEXTS, 300, tmp_path_factory.mktemp("bpe"))


@settings(deadline=None, max_examples=100)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=30))
def test_byte_pairs_spell_every_text(bpe, text):
    import unicodedata

    text = unicodedata.normalize("NFC", text)
    assert bpe.decode(bpe.encode(text)) in (text, text.removeprefix(" "))
    assert ByteCodec().decode(ByteCodec().encode(text)) == text


def test_frequent_words_are_few_tokens(bpe):
    assert len(bpe.encode("Hunde laufen")) < len(bpe.encode("qzjxv wkzpq"))


def test_a_codec_travels_as_json(bpe):
    for codec, text in (
        (bpe, "two dogs"),
        (ByteCodec(), "two dogs"),
        (CharacterCodec("abc "), "a cab"),
        (WordCodec(["jump", "run"]), "run jump run"),
    ):
        again = codec_from_json(json.loads(json.dumps(codec.as_json())))
        assert again.size == codec.size
        assert again.encode(text) == codec.encode(text)
        assert again.decode(again.encode(text)) == text


def test_an_unknown_word_is_named_with_the_nearest():
    with pytest.raises(InputError, match="word 'jmup' is not among the 2 that the model knows; did you mean 'jump'"):
        WordCodec(["jump", "run"]).encode("jmup")


def test_it_is_kept_by_the_hash_of_what_it_was_learned_from(tmp_path):
    first = learn_bpe(TEXTS, 280, tmp_path)
    [path] = tmp_path.iterdir()
    content, when = path.read_bytes(), path.stat().st_mtime_ns
    assert learn_bpe(TEXTS, 280, tmp_path).as_json() == first.as_json()
    assert path.stat().st_mtime_ns == when  # read, not learned again
    path.unlink()
    learn_bpe(TEXTS, 280, tmp_path)
    assert path.read_bytes() == content
    learn_bpe(TEXTS, 281, tmp_path)
    learn_bpe([*TEXTS, "more"], 280, tmp_path)
    learn_bpe(["".join(TEXTS[:2]), *TEXTS[2:]], 280, tmp_path)
    learn_bpe(["\n".join(TEXTS[:2]), *TEXTS[2:]], 280, tmp_path)
    assert len(list(tmp_path.iterdir())) == 5


def test_a_vocabulary_that_is_damaged_is_learned_again_and_one_that_can_not_be_kept_is_a_fault(tmp_path):
    first = learn_bpe(TEXTS, 280, tmp_path)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    assert learn_bpe(TEXTS, 280, tmp_path).as_json() == first.as_json()
    (tmp_path / "file").write_text("")
    with pytest.raises(FaultError, match="the vocabulary can't be written to "):
        learn_bpe(TEXTS, 280, tmp_path / "file")


def test_classes_byte_pairs_are_learned_from_the_training_split_alone(monkeypatch):
    seen = []
    learn = classification.learn_bpe
    monkeypatch.setattr(classification, "learn_bpe", lambda texts, size: seen.append(list(texts)) or learn(texts, size))
    config = ClassificationConfig()
    Classification(config, 64, torch.device("cpu"))
    assert sorted(seen[0]) == sorted(text for text, _ in labelled_texts(config)["training"])


def test_byte_pairs_are_learned_from_the_training_split_alone(monkeypatch):
    """What validation and test hold is changed altogether: not a merge is another, nor is any pair from them seen."""
    seen = []
    plain_pairs, plain_learn = translation.sentence_pairs, translation.learn_bpe
    monkeypatch.setattr(
        translation, "learn_bpe", lambda texts, size: seen.append(list(texts)) or plain_learn(texts, size)
    )
    config = TranslationConfig(numbers=200, held_out=20)
    Translation(config, 64, torch.device("cpu"))
    strange = {"tune": [("xqxq xqxq", "zjzj zjzj")] * 20, "evaluate": [("xqxq", "zjzj")] * 20}
    monkeypatch.setattr(translation, "sentence_pairs", lambda config: plain_pairs(config) | strange)
    Translation(config, 64, torch.device("cpu"))
    assert seen[0] == seen[1]
    assert sorted(seen[0]) == sorted(text for pair in plain_pairs(config)["training"] for text in pair)
