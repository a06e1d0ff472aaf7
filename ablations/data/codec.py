"""Codecs: how text becomes token ids and back, small enough to travel in a checkpoint. Imports no torch."""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from trans4init.ablations.errors import InputError, nearest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["BpeCodec", "ByteCodec", "CharacterCodec", "Codec", "WordCodec", "codec_from_json"]


class Codec(Protocol):
    """Text to ids 0 .. size − 1 and back."""

    @property
    def size(self) -> int:
        """How many different tokens there are."""

    def encode(self, text: str) -> list[int]:
        """Ids; raises InputError for a text that the tokens can't spell."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids."""

    def as_json(self) -> dict[str, Any]:
        """What `codec_from_json` makes it from."""


class ByteCodec:
    """UTF-8 bytes."""

    size = 256

    def encode(self, text: str) -> list[int]:
        """A number per byte."""
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """Bytes that are no characters are shown as such."""
        return bytes(ids).decode(errors="replace")

    def as_json(self) -> dict[str, Any]:
        """Nothing but its kind."""
        return {"kind": "bytes"}


class _ListCodec:
    """Tokens by their place in a list."""

    kind: str
    between: str
    what: str

    def __init__(self, tokens: Iterable[str]) -> None:
        self.tokens = list(tokens)
        self._ids = {token: number for number, token in enumerate(self.tokens)}

    @property
    def size(self) -> int:
        """The list's length."""
        return len(self.tokens)

    def split(self, text: str) -> list[str]:
        """The text's tokens."""
        raise NotImplementedError

    def encode(self, text: str) -> list[int]:
        """Places in the list; raises InputError for a token that isn't there, with the nearest."""
        found = self.split(text)
        unknown = next((token for token in found if token not in self._ids), None)
        if unknown is not None:
            close = nearest(unknown, self.tokens)
            hint = f"; did you mean {close!r}?" if close else "."
            raise InputError(f"{self.what} {unknown!r} is not among the {self.size} that the model knows{hint}")
        return [self._ids[token] for token in found]

    def decode(self, ids: Sequence[int]) -> str:
        """The tokens again."""
        return self.between.join(self.tokens[number] for number in ids)

    def as_json(self) -> dict[str, Any]:
        """The list."""
        return {"kind": self.kind, "tokens": self.tokens}


class CharacterCodec(_ListCodec):
    """Characters."""

    kind, between, what = "characters", "", "character"

    def split(self, text: str) -> list[str]:
        """One by one."""
        return list(text)


class WordCodec(_ListCodec):
    """Words between blanks."""

    kind, between, what = "words", " ", "word"

    def split(self, text: str) -> list[str]:
        """By white space."""
        return text.split()


class BpeCodec:
    """Byte-pair encoding (Sennrich et al. 2016) over bytes: every text can be spelled."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self.tokenizer = tokenizer

    @property
    def size(self) -> int:
        """Bytes and merges."""
        return int(self.tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Ids of merged bytes."""
        return list(self.tokenizer.encode(text).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text again."""
        return str(self.tokenizer.decode(list(ids))).removeprefix(" ")

    def as_json(self) -> dict[str, Any]:
        """The tokenizer in its library's own words."""
        return {"kind": "bpe", "tokenizer": json.loads(self.tokenizer.to_str())}


def codec_from_json(words: dict[str, Any]) -> Codec:
    """The codec that said these words."""
    if words["kind"] == "bpe":
        from tokenizers import Tokenizer

        return BpeCodec(Tokenizer.from_str(json.dumps(words["tokenizer"])))
    if words["kind"] == "bytes":
        return ByteCodec()
    kinds = {one.kind: one for one in (CharacterCodec, WordCodec)}
    return kinds[words["kind"]](words["tokens"])
