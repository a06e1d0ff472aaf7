"""Text for language models: its source, its tokens and its split. Imports no torch."""

import hashlib
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trans4init.ablations.data.config import Split, TaskConfig
from trans4init.ablations.data.datasets import DATASETS, fetch
from trans4init.ablations.errors import InputError, nearest
from trans4init.ablations.settings.base import Field
from trans4init.ablations.user_files import check_file
from trans4init.reports.records.metrics import PERPLEXITY, VALIDATION_LOSS, at_context
from trans4init.reports.records.schema import Metric

__all__ = ["BITS_PER_BYTE", "MULTIPLES", "NAMED_SOURCES", "SPLITS", "Text", "TextConfig", "read_text"]

BITS_PER_BYTE = Metric("bits_per_byte", "bit/byte", higher_is_better=False)
MULTIPLES = (1, 2, 4)
"""Evaluated contexts, as multiples of the trained one; at each the same tokens are predicted."""

SPLITS: dict[Split, tuple[float, float]] = {"tune": (0.85, 0.9), "evaluate": (0.9, 1.0)}
"""The part of the text that a split is, as shares; a model is trained on all text before the split that measures it.
Public character models are validated on the last tenth and trained on the first nine."""

LARGEST_TEXT = 2**32
"""The most bytes of a file that is read as a text."""

STDLIB = "python-stdlib"
NAMED_SOURCES = (STDLIB, "tinyshakespeare")


class TextConfig(TaskConfig):
    """Names the data of task `text`."""

    name: Literal["text"] = "text"
    source: str = STDLIB
    """`python-stdlib`, a public data set's name, or the path of a file."""
    unit: Literal["byte", "character"] = "byte"
    """What a token is: a byte of the file, or a character of its UTF-8 text."""
    evaluation_tokens: int = Field(default=16384, ge=1)
    """Number of tokens, spread over the split, that an evaluation predicts; fewer if the split is shorter."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of a final evaluation."""
        longer = (at_context(VALIDATION_LOSS, multiple) for multiple in MULTIPLES[1:])
        return (VALIDATION_LOSS, BITS_PER_BYTE, PERPLEXITY, *longer)

    def located(self, folder: Path) -> "TextConfig":
        """Return the same settings with a file's path made absolute; a relative path is relative to `folder`."""
        if self.source in NAMED_SOURCES:
            return self
        return self.model_copy(update={"source": str(folder.absolute() / os.path.expanduser(self.source))})

    def fingerprint(self) -> str:
        """Return the SHA-256 of the text; raises InputError if it can't be read."""
        return hashlib.sha256(_read_source(self.source)).hexdigest()

    def public(self) -> dict[str, Any]:
        """Return the settings for results: a user's file by its name alone."""
        return super().public() | {"source": Path(self.source).name}

    def __str__(self) -> str:
        return f"{self.unit} language model of {Path(self.source).name}"


@dataclass(frozen=True, eq=False)
class Text:
    """Holds a text as token ids."""

    source: str
    tokens: NDArray[np.uint8] | NDArray[np.int32]
    vocabulary: int
    fingerprint: str
    """SHA-256 of the text's bytes."""
    alphabet: str = ""
    """The characters by token id; empty if tokens are bytes."""

    def bytes_per_token(self, tokens: NDArray[np.integer[Any]]) -> float:
        """Return the mean number of UTF-8 bytes of these tokens."""
        if not self.alphabet:
            return 1.0
        return float(np.array([len(character.encode()) for character in self.alphabet])[tokens].mean())

    def held_out(self, split: Split) -> NDArray[np.uint8] | NDArray[np.int32]:
        """Return the part of the text that a model is measured on."""
        first, last = (round(share * len(self.tokens)) for share in SPLITS[split])
        return self.tokens[first:last]

    def training(self, split: Split) -> NDArray[np.uint8] | NDArray[np.int32]:
        """Return the text before that part, which the model is trained on."""
        return self.tokens[: round(SPLITS[split][0] * len(self.tokens))]


def read_text(config: TextConfig) -> Text:
    """Read and encode the text; raises InputError if the source is missing or empty, or not UTF-8 if characters."""
    content = _read_source(config.source)
    fingerprint = hashlib.sha256(content).hexdigest()
    if config.unit == "byte":
        return Text(config.source, np.frombuffer(content, dtype=np.uint8), 256, fingerprint)
    try:
        characters = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f'{config.source} is not UTF-8 (byte {error.start}); use unit = "byte", which reads any file.'
        ) from None
    codes = np.frombuffer(characters.encode("utf-32-le"), dtype=np.uint32)
    alphabet, tokens = np.unique(codes, return_inverse=True)
    return Text(
        config.source,
        tokens.astype(np.int32),
        len(alphabet),
        fingerprint,
        "".join(map(chr, alphabet)),
    )


def _read_source(source: str) -> bytes:
    """Return the bytes of `python-stdlib`, of a public data set, or of a file; raises InputError if there are none."""
    if source == STDLIB:
        return _standard_library()
    if source in NAMED_SOURCES:
        return fetch(DATASETS[f"{source}/input.txt"]).read_bytes()
    path = Path(source)
    try:
        check_file(path, LARGEST_TEXT)
        content = path.read_bytes()
    except FileNotFoundError:
        close = nearest(path.name, NAMED_SOURCES)
        hint = f"; did you mean {close!r}?" if close else f"; named sources are: {', '.join(NAMED_SOURCES)}."
        raise InputError(f"there is no file {source!r}{hint}") from None
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: the name has a zero byte
        raise InputError(f"{source!r} can't be read: {getattr(error, 'strerror', None) or error}.") from None
    if not content:
        raise InputError(f"{source} is empty.")
    return content


def _standard_library() -> bytes:
    """Return the source text of the running Python's top-level standard modules, in order of their names."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    content = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    if not content:
        raise InputError(f"{folder} holds no source text of Python's standard library; name a file instead.")
    return content
