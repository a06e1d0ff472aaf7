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
    with pytest.raises(ValueError, match="registered twice"):
        registry.register(Thing)


def test_a_wrong_name_is_an_input_error():
    with pytest.raises(InputError, match="unknown thing"):
        Registry("thing").get("thong")


def test_every_module_of_a_package_is_imported(tmp_path, monkeypatch):
    """Adding a function or a net is one file: nothing else names it."""
    package = tmp_path / "extra_things"
    package.mkdir()
    (package / "__init__.py").write_text("SEEN = []")
    (package / "one.py").write_text("import extra_things\nextra_things.SEEN.append('one')")
    monkeypatch.syspath_prepend(tmp_path)
    import extra_things

    import_all("extra_things", extra_things.__path__)
    assert extra_things.SEEN == ["one"]
