"""Task `scan`: turn commands into actions."""

from typing import Any

import torch

from trans4init.ablations.data.codec import WordCodec
from trans4init.ablations.data.config import Kind, Split
from trans4init.ablations.data.pairs import Pairs
from trans4init.ablations.data.scan import ScanConfig, scan_pairs
from trans4init.ablations.tasks.base import TASKS
from trans4init.ablations.tasks.pairs import StoredPairTask, vocabulary

__all__ = ["Scan"]


@TASKS.register
class Scan(StoredPairTask):
    """Turn a command into actions; tested on commands (simple) or lengths (length) that were not trained on."""

    name = "scan"

    def __init__(self, config: ScanConfig, context: int, device: torch.device, kind: Kind = "decoder") -> None:
        self.check_kind(config, kind)
        self.config, self.context, self.device, self.kind = config, context, device, kind
        self.fingerprint = config.fingerprint()
        pairs = scan_pairs(config)
        words = {word for part in pairs["training"] for text in part for word in text.split()}
        self._codec = WordCodec(sorted(words))
        encoded = {part: self._encoded(rows) for part, rows in pairs.items()}
        self.training = encoded["training"]
        self._held_out: dict[Split, Pairs] = {"tune": encoded["tune"], "evaluate": encoded["evaluate"]}
        self.check_lengths(self.training)

    @property
    def model_fields(self) -> dict[str, Any]:
        """The number of tokens: one per word of command or action, and the special ones."""
        return vocabulary(self._codec.size)

    @property
    def codec(self) -> WordCodec:
        """The codec of the words of the training split."""
        return self._codec

    def held_out(self, split: Split) -> Pairs:
        """Return all commands of the split."""
        return self._held_out[split]

    def _encoded(self, rows: list[tuple[str, str]]) -> Pairs:
        encode = self._codec.encode
        return Pairs([encode(command) for command, _ in rows], [encode(actions) for _, actions in rows])
