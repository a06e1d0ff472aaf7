"""Recipes and studies are loaded from TOML files alike, with mistakes named in one sentence."""

import pytest

from trans4init.ablations.errors import InputError
from trans4init.ablations.settings.base import BaseModel, ConfigDict
from trans4init.ablations.settings.toml_file import load_toml, shipped_files


class Part(BaseModel):
    """Is a section."""

    model_config = ConfigDict(extra="forbid")

    size: int = 1
    depth: int = 2


class Thing(BaseModel):
    """Holds a file's settings."""

    model_config = ConfigDict(extra="forbid")

    name: str
    part: Part = Part()


@pytest.fixture
def shipped(tmp_path):
    (tmp_path / "shipped").mkdir()
    path = tmp_path / "shipped" / "small.toml"
    path.write_text('name = "small"\n[part]\nsize = 3\n')
    return {"small": path}


def test_a_shipped_name_and_a_path_give_the_settings_and_their_folder(shipped, tmp_path, monkeypatch):
    (tmp_path / "own").write_text('name = "own"')
    monkeypatch.chdir(tmp_path)
    assert load_toml(Thing, "thing", "small", shipped, {}) == (
        Thing(name="small", part=Part(size=3)),
        tmp_path / "shipped",
    )
    settings, folder = load_toml(Thing, "thing", "own", shipped, {})
    assert (settings.name, folder.resolve()) == ("own", tmp_path)


def test_changes_reach_into_sections_make_them_and_replace_them(shipped):
    def part(changes):
        return load_toml(Thing, "thing", "small", shipped, changes)[0].part

    assert part({"part.depth": 7}) == Part(size=3, depth=7)
    assert part({"part": {"depth": 7}}) == Part(size=1, depth=7)
    changes = {"part": {"depth": 7}, "part.size": 5}
    assert part(changes) == Part(size=5, depth=7)
    assert changes["part"] == {"depth": 7}  # the caller's section is not written to
    shipped["small"].write_text('name = "small"')
    assert part({"part.depth": 7}) == Part(depth=7)


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("smal", {}, "unknown thing 'smal'; did you mean 'small'?"),
        ("a/b", {}, "there is no thing file 'a/b'."),
        ("missing.toml", {}, "there is no thing file 'missing.toml'."),
        ("x" * 300, {}, "unknown thing 'xxx"),
        ("small", {"part.sise": 1}, "small: [part] unknown key 'sise'; did you mean 'size'?"),
        ("small", {"name.part": 1}, "small: 'name.part' can't be set, since 'name' is a value there, not a section."),
    ],
)
def test_a_mistake_is_one_sentence(shipped, name, changes, sentence):
    with pytest.raises(InputError) as caught:
        load_toml(Thing, "thing", name, shipped, changes)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_toml_or_not_text_is_refused(shipped):
    for content in (b"[part", b"\xff"):
        shipped["small"].write_bytes(content)
        with pytest.raises(InputError, match=r"small\.toml is not valid TOML: "):
            load_toml(Thing, "thing", "small", shipped, {})


def test_shipped_files_are_found_by_name():
    assert {"copy", "scan-length"} <= set(shipped_files("recipes"))
    assert "positional-text" in shipped_files("studies")
