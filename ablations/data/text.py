"""Text to model: where it comes from, what a token is, how it is split. Imports no torch."""

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
from trans4init.reports.records.metrics import PERPLEXITY, VALIDATION_LOSS, at_context
from trans4init.reports.records.schema import Metric

__all__ = ["BITS_PER_BYTE", "MULTIPLES", "NAMED_SOURCES", "SPLITS", "Text", "TextConfig", "read_text"]

BITS_PER_BYTE = Metric("bits_per_byte", "bit/byte", higher_is_better=False)
MULTIPLES = (1, 2, 4)
"""Evaluated contexts, as multiples of the trained one; all predict the same tokens."""

SPLITS: dict[Split, tuple[float, float]] = {"tune": (0.85, 0.9), "evaluate": (0.9, 1.0)}
"""What models are measured on, as shares of the text; each is trained on all the text before. The last tenth is what
public character models are validated on, with the first nine tenths to learn from."""

STDLIB = "python-stdlib"
NAMED_SOURCES = (STDLIB, "tinyshakespeare")


class TextConfig(TaskConfig):
    """The data of task `text`, as a study file names it."""

    name: Literal["text"] = "text"
    source: str = STDLIB
    """`python-stdlib`, a public data set's name, or the path of a file."""
    unit: Literal["byte", "character"] = "byte"
    evaluation_tokens: int = Field(default=16384, ge=1)
    """How many tokens, spread over the split, an evaluation predicts; fewer where the split is shorter."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What a final evaluation measures."""
        longer = (at_context(VALIDATION_LOSS, multiple) for multiple in MULTIPLES[1:])
        return (VALIDATION_LOSS, BITS_PER_BYTE, PERPLEXITY, *longer)

    def located(self, folder: Path) -> "TextConfig":
        """The same with a file's path made absolute, relative paths being relative to `folder`."""
        if self.source in NAMED_SOURCES:
            return self
        return self.model_copy(update={"source": str(folder.absolute() / os.path.expanduser(self.source))})

    def fingerprint(self) -> str:
        """SHA-256 of the text; raises InputError where it can't be read."""
        return hashlib.sha256(_read_source(self.source)).hexdigest()

    def public(self) -> dict[str, Any]:
        """A user's file by its name alone."""
        return super().public() | {"source": Path(self.source).name}

    def __str__(self) -> str:
        return f"{self.unit} language model of {Path(self.source).name}"


@dataclass(frozen=True, eq=False)
class Text:
    """A text as token ids."""

    source: str
    tokens: NDArray[np.uint8] | NDArray[np.int32]
    vocabulary: int
    fingerprint: str
    """SHA-256 of the bytes."""
    alphabet: str = ""
    """The characters by their token, where tokens are characters."""

    def bytes_per_token(self, tokens: NDArray[np.integer[Any]]) -> float:
        """Of these tokens, in UTF-8."""
        if not self.alphabet:
            return 1.0
        return float(np.array([len(character.encode()) for character in self.alphabet])[tokens].mean())

    def held_out(self, split: Split) -> NDArray[np.uint8] | NDArray[np.int32]:
        """The stretch that a model is measured on."""
        first, last = (round(share * len(self.tokens)) for share in SPLITS[split])
        return self.tokens[first:last]

    def training(self, split: Split) -> NDArray[np.uint8] | NDArray[np.int32]:
        """The text before that stretch: what such a model learns from."""
        return self.tokens[: round(SPLITS[split][0] * len(self.tokens))]


def read_text(config: TextConfig) -> Text:
    """Read and encode; raises InputError for a source that isn't there, is empty, or is not UTF-8 characters."""
    content = _read_source(config.source)
    fingerprint = hashlib.sha256(content).hexdigest()
    if config.unit == "byte":
        return Text(config.source, np.frombuffer(content, dtype=np.uint8), 256, fingerprint)
    try:
        characters = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f'{config.source} is not UTF-8 (byte {error.start}); use unit = "byte", which takes any file.'
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
    """The bytes of `python-stdlib`, a public data set, or a file; raises InputError in one sentence."""
    if source == STDLIB:
        return _standard_library()
    if source in NAMED_SOURCES:
        return fetch(DATASETS[f"{source}/input.txt"]).read_bytes()
    path = Path(source)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        close = nearest(path.name, NAMED_SOURCES)
        hint = f"; did you mean {close!r}?" if close else f"; named sources are: {', '.join(NAMED_SOURCES)}."
        raise InputError(f"there is no file {source!r}{hint}") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte in it
        raise InputError(f"{source!r} can't be read: {getattr(error, 'strerror', None) or error}.") from None
    if not content:
        raise InputError(f"{source} is empty.")
    return content


def _standard_library() -> bytes:
    """The source text of the running Python's top-level standard modules, in order of their names."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    content = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    if not content:
        raise InputError(f"this Python has no source text of its standard library in {folder}; name a file instead.")
    return content
