"""Registries: one class in one file is enough."""

from typing import ClassVar

import pytest

from trans4init.ablations.errors import InputError
from trans4init.ablations.registry import Registry, import_all


class Thing:
    name: ClassVar[str] = "thing"


def test_a_registered_class_is_found_by_its_name():
    registry = Registry("thing")
    assert registry.register(Thing) is Thing
    assert registry.get("thing") is Thing
    assert registry.names() == ["thing"]


def test_a_name_can_be_taken_once():
    registry = Registry("thing")
    registry.register(Thing)
    with pytest.raises(InputError, match="registered twice"):
        registry.register(Thing)


def test_a_file_is_asked_for_what_it_registers_itself(tmp_path, monkeypatch):
    """What has the name elsewhere doesn't count, even in a file that is called the same."""
    registry = Registry("thing")
    registry.register(Thing)
    monkeypatch.setattr("trans4init.ablations.registry.SEEN", registry, raising=False)
    source = "from trans4init.ablations.registry import SEEN\n\n@SEEN.register\nclass Other:\n    name = {!r}\n"
    texts = [source.format("first"), source.format("second"), "", source.format("thing")]
    files = [tmp_path / str(number) / "mine.py" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.parent.mkdir()
        file.write_text(text)
    assert registry.get(f"{files[0]}:first").name == "first"
    assert registry.get(f"{files[1]}:second").name == "second"
    assert registry.names() == ["thing"]  # a list has what any process finds by its plain name
    with pytest.raises(InputError, match="unknown thing 'second'; there are: first"):
        registry.get(f"{files[0]}:second")
    with pytest.raises(InputError, match=r"mine\.py registers no thing"):
        registry.get(f"{files[2]}:thing")
    with pytest.raises(InputError, match="thing 'thing' is registered twice"):
        registry.get(f"{files[3]}:thing")


def test_a_file_that_failed_is_run_again_when_it_is_mended(tmp_path, monkeypatch):
    registry = Registry("thing")
    monkeypatch.setattr("trans4init.ablations.registry.SEEN", registry, raising=False)
    source = "from trans4init.ablations.registry import SEEN\n\n@SEEN.register\nclass Own:\n    name = 'own'\n"
    file = tmp_path / "mine.py"
    file.write_text(source + "\nraise ValueError('half done')\n")
    with pytest.raises(ValueError, match="half done"):
        registry.get(f"{file}:own")
    file.write_text(source + "    mended = True\n")
    assert registry.get(f"{file}:own").mended


def test_a_wrong_name_is_an_input_error():
    with pytest.raises(InputError, match="unknown thing"):
        Registry("thing").get("thong")


def test_every_module_of_a_package_is_imported(tmp_path, monkeypatch):
    """A new file in a package is enough: nothing else names it."""
    package = tmp_path / "extra_things"
    package.mkdir()
    (package / "__init__.py").write_text("SEEN = []")
    (package / "one.py").write_text("import extra_things\nextra_things.SEEN.append('one')")
    monkeypatch.syspath_prepend(tmp_path)
    import extra_things

    import_all("extra_things", extra_things.__path__)
    assert extra_things.SEEN == ["one"]
