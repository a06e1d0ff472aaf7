"""Learn a byte-pair encoding from a training split, and cache it under the hash of what it was learned from."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from trans4init.ablations.data.codec import BpeCodec
from trans4init.ablations.errors import FaultError
from trans4init.reports.files import write_whole

__all__ = ["learn_bpe"]


def learn_bpe(texts: Sequence[str], size: int, folder: Path | None = None) -> BpeCodec:
    """Learn `size` tokens (256 bytes among them) from the texts of a training split, or read them from the cache.

    folder: the cache's folder, by default the project's. The same texts, size and version of `tokenizers` give the
    same file. Raises FaultError if it can't be written.
    """
    import pooch
    import tokenizers  # here, with pooch: tasks whose tokens are bytes or symbols don't need them
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    folder = folder or Path(pooch.os_cache("trans4init")) / "bpe"
    digest = hashlib.sha256(json.dumps([tokenizers.__version__, size, *texts]).encode())
    path = folder / f"{digest.hexdigest()[:32]}.json"
    if path.is_file() and _is_whole(path):
        return BpeCodec(Tokenizer.from_file(str(path)))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, tokenizer.to_str())
    except OSError as error:
        raise FaultError(f"the vocabulary can't be written to {folder}: {error.strerror}.") from error
    return BpeCodec(tokenizer)


def _is_whole(path: Path) -> bool:
    """Return whether the file is JSON: a damaged one is learned again."""
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True
