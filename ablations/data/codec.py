"""Codecs: how text becomes token ids and back, small enough to travel in a checkpoint. Imports no torch."""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from trans4init.ablations.errors import InputError, nearest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["BpeCodec", "ByteCodec", "CharacterCodec", "Codec", "WordCodec", "codec_from_json"]


class Codec(Protocol):
    """Turns text into token ids 0 .. size − 1, and back."""

    @property
    def size(self) -> int:
        """Return the number of different tokens."""

    def encode(self, text: str) -> list[int]:
        """Return the ids; raises InputError for a text that the tokens can't spell."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of some ids."""

    def as_json(self) -> dict[str, Any]:
        """Return what `codec_from_json` makes the codec from."""


class ByteCodec:
    """A token is a UTF-8 byte."""

    size = 256

    def encode(self, text: str) -> list[int]:
        """Return a number per byte."""
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text; bytes that are not UTF-8 become U+FFFD."""
        return bytes(ids).decode(errors="replace")

    def as_json(self) -> dict[str, Any]:
        """Return the kind of codec."""
        return {"kind": "bytes"}


class _ListCodec:
    """A token's id is its place in a list."""

    kind: str
    between: str
    what: str

    def __init__(self, tokens: Iterable[str]) -> None:
        self.tokens = list(tokens)
        self._ids = {token: number for number, token in enumerate(self.tokens)}

    @property
    def size(self) -> int:
        """Return the list's length."""
        return len(self.tokens)

    def split(self, text: str) -> list[str]:
        """Divide the text into tokens."""
        raise NotImplementedError

    def encode(self, text: str) -> list[int]:
        """Return places in the list; raises InputError for a token that isn't in it, with the nearest."""
        tokens = self.split(text)
        unknown = next((token for token in tokens if token not in self._ids), None)
        if unknown is not None:
            close = nearest(unknown, self.tokens)
            hint = f"; did you mean {close!r}?" if close else "."
            raise InputError(f"{self.what} {unknown!r} is not among the {self.size} that the model knows{hint}")
        return [self._ids[token] for token in tokens]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the tokens, joined."""
        return self.between.join(self.tokens[number] for number in ids)

    def as_json(self) -> dict[str, Any]:
        """Return the kind of codec and the list."""
        return {"kind": self.kind, "tokens": self.tokens}


class CharacterCodec(_ListCodec):
    """A token is a character."""

    kind, between, what = "characters", "", "character"

    def split(self, text: str) -> list[str]:
        """Divide the text into characters."""
        return list(text)


class WordCodec(_ListCodec):
    """A token is a word between blanks."""

    kind, between, what = "words", " ", "word"

    def split(self, text: str) -> list[str]:
        """Divide the text at white space."""
        return text.split()


class BpeCodec:
    """Byte-pair encoding (Sennrich et al. 2016) over bytes, so that every text can be spelled."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self.tokenizer = tokenizer

    @property
    def size(self) -> int:
        """Return the number of bytes and merges."""
        return int(self.tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Return the ids of merged bytes."""
        return list(self.tokenizer.encode(text).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text."""
        return str(self.tokenizer.decode(list(ids))).removeprefix(" ")

    def as_json(self) -> dict[str, Any]:
        """Return the kind of codec and the tokenizer as its library writes it."""
        return {"kind": "bpe", "tokenizer": json.loads(self.tokenizer.to_str())}


def codec_from_json(content: dict[str, Any]) -> Codec:
    """Return the codec whose `as_json` gave this content."""
    if content["kind"] == "bpe":
        from tokenizers import Tokenizer

        return BpeCodec(Tokenizer.from_str(json.dumps(content["tokenizer"])))
    if content["kind"] == "bytes":
        return ByteCodec()
    codecs = {codec.kind: codec for codec in (CharacterCodec, WordCodec)}
    return codecs[content["kind"]](content["tokens"])
