"""What a key takes and means is said in words that come from its type, bounds and docstring."""

from typing import Annotated, Literal

import pytest

from trans4init.ablations.data.sequences import AdditionConfig, SequenceConfig
from trans4init.ablations.settings.base import BaseModel, Field
from trans4init.ablations.settings.key_schema import key_schema
from trans4init.ablations.settings.key_words import values_in_words
from trans4init.ablations.settings.meanings import first_sentence, meanings
from trans4init.ablations.settings.model import ModelSize


class Part(BaseModel):
    """Is a section."""

    low: float
    high: float


class Many(BaseModel):
    """Is a section of more keys than are listed."""

    a: int
    b: int
    c: int
    d: int


class Thing(BaseModel):
    """Holds a key of each kind."""

    whole: int
    between: Annotated[int, Field(ge=2, le=5000)]
    least: Annotated[float, Field(ge=0.5)]
    most: Annotated[float, Field(le=3)]
    above: Annotated[float, Field(gt=0)] | None = None
    open: Annotated[float, Field(gt=0, lt=1)]
    half_open: Annotated[float, Field(ge=0, lt=1)]
    flag: bool
    word: str
    choice: Literal["one", "two", "three"]
    only: Literal[10]
    several: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=2)]
    parts: tuple[Part, ...]
    part: Part
    many: Many
    table: dict[str, Annotated[float, Field(gt=0)]]
    tables: dict[str, Part]
    either: int | str
    hidden: Annotated[int, Field(exclude=True)] = 0


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("whole", "a whole number"),
        ("between", "a whole number from 2 to 5,000"),
        ("least", "a number of at least 0.5"),
        ("most", "a number of at most 3"),
        ("above", "a number above 0"),
        ("open", "a number above 0 and below 1"),
        ("half_open", "a number of at least 0 and below 1"),
        ("flag", "true or false"),
        ("word", "a text"),
        ("choice", '"one", "two" or "three"'),
        ("only", "10"),
        ("several", "a list of at least 2, each a whole number of at least 1"),
        ("parts", "a list of sections"),
        ("part", "a section with low and high"),
        ("many", "a section"),
        ("table", "a section, each of its keys a number above 0"),
        ("tables", "a section, each of its keys a section with low and high"),
        ("either", "a whole number or a text"),
    ],
)
def test_the_values_of_a_key_are_said_in_words(key, words):
    schema = key_schema(Thing)
    assert values_in_words(schema["properties"][key], schema["$defs"]) == words


def test_a_key_that_no_file_sets_is_not_in_the_schema():
    assert "hidden" in Thing.model_fields
    assert "hidden" not in key_schema(Thing)["properties"]


def test_a_meaning_is_the_docstring_under_the_key_and_a_subclass_may_say_another():
    base, own = meanings(SequenceConfig), meanings(AdditionConfig)
    assert base["tested_longest"] == "Length of the longest input that is tested, in symbols."
    assert own["tested_longest"] == "Digits of the longest numbers that are tested."
    assert own["evaluation_examples"] == base["evaluation_examples"]
    assert own["name"] == "The task's name."


def test_a_meaning_in_a_schema_says_left_out_for_none():
    assert "None: 4 · width" in meanings(ModelSize)["feed_forward"]
    description = key_schema(ModelSize)["properties"]["feed_forward"]["description"]
    assert description == "Width inside the feed-forward layers; left out: 4 · width."


def test_the_first_sentence_ends_at_a_full_stop_before_a_capital_letter():
    assert first_sentence("Number of rounds. The models are built again.") == "Number of rounds"
    assert first_sentence("As in Vaswani et al. 2017, table 3.") == "As in Vaswani et al. 2017, table 3"
    assert first_sentence("As e.g. Adam does. Or not.") == "As e.g. Adam does"
