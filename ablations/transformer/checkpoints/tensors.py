"""The tensors of a checkpoint: reads them from their files, and brings them into the names and shapes used here."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trans4init.ablations.errors import InputError

__all__ = ["Layout", "embedding_source", "read_tensors", "renamed", "translated"]

_SHOWN = 4
"""The number of tensors that a sentence about missing or unused tensors names; it counts the others."""


@dataclass(frozen=True)
class Layout:
    """Says where the tensors of a model are in a checkpoint."""

    sources: dict[str, tuple[str, ...]]
    """For each tensor of the model its name in the checkpoint; the rows of several are put one below the other."""
    unused: str
    """Matches the names of tensors that the model's logits don't depend on."""
    transposed: bool = False
    """Whether the matrices of the blocks are [in, out] in the checkpoint."""


def read_tensors(folder: Path, class_name: str) -> dict[str, Tensor]:
    """Read model.safetensors, or the files that model.safetensors.index.json names.

    Raises InputError where there are only pickled weights (`.bin`), which can run any code: it says how to convert
    those of that class of transformers.
    """
    single_file, index_file = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single_file.exists():
        return _read_file(single_file)
    if any(folder.glob("pytorch_model*.bin")) and not index_file.exists():
        raise InputError(
            f"{folder} has its weights in .bin files, which aren't read, since loading one can run any code in it; "
            f"to convert them to safetensors, run `from transformers import {class_name} as Model; "
            f"Model.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})` in Python."
        )
    if not index_file.exists():
        return _read_file(single_file)
    try:
        places = json.loads(index_file.read_text(encoding="utf-8"))["weight_map"].items()
        names_by_file = {str(file): {name for name, place in places if place == file} for _, file in places}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index_file} doesn't say in weight_map which file each tensor is in: {error!r}.") from None
    tensors: dict[str, Tensor] = {}
    for file, names in sorted(names_by_file.items()):
        shard = _read_file(folder / file)
        if set(shard) != names:
            raise InputError(
                f"{folder / file} doesn't hold the tensors that {index_file.name} says: {_listed(names ^ set(shard))}."
            )
        tensors |= shard
    return tensors


def _read_file(file: Path) -> dict[str, Tensor]:
    # Imported here: the package of the Transformer imports this file, and models are measured without safetensors.
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(file)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{file.parent} is not a Hugging Face checkpoint with config.json and model.safetensors: {error}"
        ) from None
    return tensors


def renamed(tensors: dict[str, Tensor], rename: Callable[[str], str]) -> dict[str, Tensor]:
    """Rename every tensor; raise InputError where two of them get the same name."""
    result: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if rename(name) in result:
            raise InputError(f"the checkpoint has the tensor {rename(name)} twice, once as {name}.")
        result[rename(name)] = value
    return result


def embedding_source(tensors: dict[str, Tensor], embedding: str, output: str, *, tied: bool) -> tuple[str, bool]:
    """Return the name of the token embeddings in the checkpoint, and whether the output layer shares them.

    tied: whether the config says so. As in transformers, a file with one of the two matrices then has both, and a file
    with two different ones is not tied.
    """
    if not tied or output not in tensors:
        return embedding, tied
    if embedding not in tensors:
        return output, True
    return embedding, torch.equal(tensors[embedding].float(), tensors[output].float())


def translated(tensors: dict[str, Tensor], layout: Layout, model: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Bring the checkpoint's tensors into the names and shapes of the `model`'s, in float32.

    Raises InputError for tensors that are missing, that have another shape, or that neither the model uses nor the
    layout lists as unused.
    """
    needed = {name for names in layout.sources.values() for name in names}
    extra = {name for name in set(tensors) - needed if not re.fullmatch(layout.unused, name)}
    lacks, has = _listed(needed - set(tensors)), _listed(extra)
    if lacks or has:
        problems = [f"lacks {lacks}"] if lacks else []
        problems += [f"has {has}, which a model with this config doesn't use"] if has else []
        raise InputError(f"{folder} {' and '.join(problems)}.")
    result: dict[str, Tensor] = {}
    for name, sources in layout.sources.items():
        flipped = layout.transposed and name.startswith("blocks.") and model[name].dim() == 2
        rows, *columns = model[name].shape
        shape = [rows // len(sources), *columns]
        for source in sources:
            _check(tensors[source], shape[::-1] if flipped else shape, f"{folder}: {source}")
        parts = torch.cat([tensors[source].float() for source in sources])
        result[name] = parts.t() if flipped else parts
    return result


def _check(tensor: Tensor, shape: list[int], name: str) -> None:
    """Raise InputError for another shape, and for numbers that aren't floating-point: those are quantised."""
    if list(tensor.shape) != shape:
        raise InputError(f"{name} is {list(tensor.shape)}, and the config says {shape}.")
    if not tensor.is_floating_point():
        raise InputError(f"{name} is {tensor.dtype}, and only weights in floating point can be loaded.")


def _listed(names: set[str]) -> str:
    """Write names after each other, the first few of many."""
    shown = ", ".join(sorted(names)[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
