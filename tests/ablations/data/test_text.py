"""Data: found where it is said to be, checked by its hash, refused in one sentence."""

import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trans4init.ablations.data.datasets import DATASETS, DataFile, fetch
from trans4init.ablations.data.text import TextConfig, read_text
from trans4init.ablations.errors import InputError

SHARED = os.environ.get("TRANS4INIT_DATA", "")


def config(path, **options):
    return TextConfig(**{"source": str(path)} | options)


def test_the_offline_default_is_the_running_pythons_source():
    text = read_text(TextConfig())
    content = bytes(text.tokens)
    assert b"class OrderedDict" in content or b"import os" in content
    assert len(content) > 1_000_000
    assert text.fingerprint == hashlib.sha256(content).hexdigest() == TextConfig().fingerprint()
    assert (text.vocabulary, text.bytes_per_token(text.tokens)) == (256, 1.0)
    first = sorted((Path(sys.modules["os"].__file__).parent).glob("*.py"))[0]
    assert content.startswith(first.read_bytes()[:100])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_characters_come_back_and_bytes_are_counted(tmp_path, content):
    path = tmp_path / "t.txt"
    path.write_bytes(content.encode("utf-8"))
    text = read_text(config(path, unit="character"))
    alphabet = sorted(set(content))
    assert "".join(alphabet[token] for token in text.tokens) == content
    assert text.vocabulary == len(alphabet)
    assert text.bytes_per_token(text.tokens) == pytest.approx(len(content.encode("utf-8")) / len(content))
    assert text.bytes_per_token(text.tokens[:1]) == len(content[0].encode("utf-8"))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1))
def test_any_file_is_bytes(tmp_path, content):
    path = tmp_path / "t.bin"
    path.write_bytes(content)
    assert bytes(read_text(config(path)).tokens) == content


def test_a_model_learns_from_all_the_text_before_what_it_is_measured_on(text_file):
    text = read_text(config(text_file))
    before = [*text.training("tune"), *text.held_out("tune")]
    assert np.array_equal(before, text.training("evaluate"))
    assert np.array_equal([*before, *text.held_out("evaluate")], text.tokens)
    assert len(text.held_out("evaluate")) == pytest.approx(0.1 * len(text.tokens), abs=1)


@pytest.mark.parametrize(
    ("make", "options", "sentence"),
    [
        (lambda path: path.write_bytes(b""), {}, "is empty"),
        (lambda path: None, {}, "there is no file"),
        (lambda path: path.mkdir(), {}, "is no regular file"),
        (lambda path: None, {"source": "a\0b"}, "can't be read: embedded null byte"),
        (lambda path: path.write_bytes(b"ab\xff"), {"unit": "character"}, r'not UTF-8 \(byte 2\); use unit = "byte"'),
    ],
)
def test_texts_that_cannot_be_used_are_refused_in_one_sentence(tmp_path, make, options, sentence):
    path = tmp_path / "bad.txt"
    make(path)
    with pytest.raises(InputError, match=sentence) as caught:
        read_text(config(path, **options))
    assert "\n" not in str(caught.value)


def test_a_mistyped_source_gets_the_nearest():
    with pytest.raises(InputError, match="did you mean 'tinyshakespeare'"):
        read_text(config("tinyshakespere"))
    with pytest.raises(InputError, match="named sources are: python-stdlib, tinyshakespeare"):
        read_text(config("zzz"))


def test_relative_paths_are_relative_to_the_study(tmp_path):
    assert config("a/b.txt").located(tmp_path).source == str(tmp_path / "a" / "b.txt")
    assert TextConfig().located(tmp_path).source == "python-stdlib"
    assert config("tinyshakespeare").located(tmp_path).source == "tinyshakespeare"


def test_unknown_keys_are_refused():
    with pytest.raises(ValidationError, match="sourc"):
        TextConfig(sourc="x")


FILE = DataFile("set/a.txt", "https://localhost:9/a.txt", hashlib.sha256(b"content").hexdigest(), "free")


def test_a_data_folder_is_searched_first(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANS4INIT_DATA", str(tmp_path))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.txt").write_bytes(b"content")
    assert fetch(FILE) == tmp_path / "set" / "a.txt"


def test_a_file_with_another_hash_is_refused_not_downloaded_over(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANS4INIT_DATA", str(tmp_path))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.txt").write_bytes(b"other")
    with pytest.raises(InputError, match=r"is not the public set/a\.txt: its SHA-256 is"):
        fetch(FILE)


def test_a_file_that_cannot_be_had_is_one_sentence_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.delenv("TRANS4INIT_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda name: tmp_path)
    with pytest.raises(InputError, match=r"could not be downloaded \(.*\); put it in a folder, .* TRANS4INIT_DATA"):
        fetch(FILE)


@pytest.mark.skipif(not (Path(SHARED) / "tinyshakespeare").is_dir(), reason="TRANS4INIT_DATA has no tinyshakespeare")
def test_tinyshakespeare_is_the_public_file():
    text = read_text(TextConfig(source="tinyshakespeare", unit="character"))
    assert (len(text.tokens), text.vocabulary) == (1115394, 65)
    assert text.fingerprint == DATASETS["tinyshakespeare/input.txt"].sha256
