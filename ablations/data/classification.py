"""Labelled texts: SST-2, a table of the user's, or number words with their language as label. Imports no torch."""

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from trans4init.ablations.data.config import Kind, TaskConfig
from trans4init.ablations.data.datasets import DATASETS, fetch
from trans4init.ablations.data.table import Table, read_table
from trans4init.ablations.data.translation import NUMBER_LANGUAGES
from trans4init.ablations.errors import InputError, nearest, shown
from trans4init.ablations.seeding import derived_seed
from trans4init.ablations.settings.base import Field
from trans4init.reports.records.metrics import ACCURACY, MACRO_F1, MAJORITY_ACCURACY, VALIDATION_LOSS
from trans4init.reports.records.schema import Metric

__all__ = ["ClassificationConfig", "labelled_texts", "left_out"]

NAMED_SOURCES = ("number-languages", "sst2")
_HELD_OUT_SHARE = 0.1
"""The share of the rows that is validated on, and again the share that is tested, if a source has no splits."""

Labelled = list[tuple[str, str]]


class ClassificationConfig(TaskConfig):
    """Names the data of task `classification`."""

    kinds: ClassVar[tuple[Kind, ...]] = ("encoder",)

    name: Literal["classification"] = "classification"
    source: str = "number-languages"
    """`number-languages` (tell the language of number words), `sst2`, or the path of a .csv or .tsv file."""
    text_column: str = "text"
    """The column of a file with the text."""
    label_column: str = "label"
    """The column of a file with the class."""
    delimiter: str = "auto"
    """What is between the fields of a file: a character, `comma`, `tab`, `semicolon`, `bar`; `auto` finds out."""
    quote: str = "auto"
    """What encloses fields of a file: a character, or `none`; `auto` finds out."""
    tokens: Annotated[int, Field(ge=256)] = 400
    """Number of byte-pair tokens, learned from the training split."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of a final evaluation."""
        return (VALIDATION_LOSS, ACCURACY, MACRO_F1, MAJORITY_ACCURACY)

    def located(self, folder: Path) -> "ClassificationConfig":
        """Return the same settings with a file's path made absolute."""
        if self.source in NAMED_SOURCES:
            return self
        return self.model_copy(update={"source": str(folder.absolute() / os.path.expanduser(self.source))})

    def fingerprint(self) -> str:
        """Return the SHA-256 of texts and labels."""
        return hashlib.sha256(json.dumps(labelled_texts(self)).encode()).hexdigest()

    def public(self) -> dict[str, Any]:
        """Return the settings for results: a user's file by its name alone."""
        return super().public() | {"source": Path(self.source).name}

    def __str__(self) -> str:
        return f"classification of {Path(self.source).name}"


def left_out(config: ClassificationConfig) -> str:
    """Say which rows of a user's table are left out since they have no text or no label; empty where none is."""
    numbers = [] if config.source in NAMED_SOURCES else _rows(config).incomplete
    if not numbers:
        return ""
    some = ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
    return f"{len(numbers)} rows without a text or a label are left out: {some}."


def labelled_texts(config: ClassificationConfig) -> dict[str, Labelled]:
    """Return texts and labels of `training`, `tune` and `evaluate`; raises InputError if the source can't be read."""
    if config.source == "sst2":
        names = {"training": "train", "tune": "dev", "evaluate": "test"}
        return {part: _sst2(name) for part, name in names.items()}
    if config.source == "number-languages":
        return _parted(_number_languages())
    rows = [(text, label) for text, label in _rows(config).rows]
    if len(rows) < 20:
        raise InputError(
            f"{shown(Path(config.source))} has {len(rows)} rows with a text and a label; at least 20 are needed."
        )
    parts = _parted(rows)
    known = {label for _, label in parts["training"]}
    if len(known) < 2:
        raise InputError(
            f"column {config.label_column!r} has one label only, {next(iter(known))!r}; at least two are needed."
        )
    unseen = {label for part in ("tune", "evaluate") for _, label in parts[part]} - known
    if unseen:
        raise InputError(
            f"label {min(unseen)!r} of column {config.label_column!r} is so rare that it occurs in no row that is "
            f"trained on; add rows with it, or name another --label-column."
        )
    return parts


def _sst2(name: str) -> Labelled:
    lines = fetch(DATASETS[f"sst2/{name}.tsv"]).read_text(encoding="utf-8").splitlines()
    rows = (line.rsplit("\t", 1) for line in lines)
    return [(text, label) for text, label in rows]


def _number_languages() -> Labelled:
    """Return numbers of one to four digits in words, each in one language."""
    from num2words import num2words  # only number words need it

    generator = np.random.default_rng(derived_seed(0, "number languages"))
    numbers = dict.fromkeys(generator.integers(1, 10 ** generator.integers(1, 5, size=3000)).tolist())
    languages = generator.choice(NUMBER_LANGUAGES, size=len(numbers)).tolist()
    return [(num2words(number, lang=language), language) for number, language in zip(numbers, languages, strict=True)]


def _parted(rows: Labelled) -> dict[str, Labelled]:
    """Draw a tenth of the rows to validate on and a tenth to test; the same rows give the same parts."""
    order = np.random.default_rng(derived_seed(0, "classification", len(rows))).permutation(len(rows))
    cut = max(1, round(_HELD_OUT_SHARE * len(rows)))
    parts = {"tune": order[:cut], "evaluate": order[cut : 2 * cut], "training": order[2 * cut :]}
    return {part: [rows[row] for row in chosen] for part, chosen in parts.items()}


def _rows(config: ClassificationConfig) -> Table:
    """Read the rows of a .csv or .tsv file that have a text and a label."""
    path = Path(config.source)
    if path.suffix.lower() not in (".csv", ".tsv"):
        close = nearest(config.source, NAMED_SOURCES)
        hint = f"did you mean {close!r}?" if close else f"there are: {', '.join(NAMED_SOURCES)}."
        raise InputError(f"source {path.name!r} is neither a .csv or .tsv file nor a named source; {hint}")
    return read_table(path, (config.text_column, config.label_column), config.delimiter, config.quote)
