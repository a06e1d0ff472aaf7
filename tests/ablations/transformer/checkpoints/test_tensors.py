"""Tests that every tensor of a checkpoint is read, or refused by name."""

import json

import pytest
import torch
from safetensors.torch import save_file

from trans4init.ablations.errors import InputError
from trans4init.ablations.transformer.checkpoints.tensors import (
    Layout,
    embedding_source,
    read_tensors,
    renamed,
    translated,
)

MODEL = {"embedding.weight": torch.zeros(5, 2), "blocks.0.out.weight": torch.zeros(6, 2)}
LAYOUT = Layout({"embedding.weight": ("wte",), "blocks.0.out.weight": ("q", "k", "v")}, unused="mask")
TENSORS = {
    "wte": torch.arange(10.0).view(5, 2),
    "q": torch.full((2, 2), 1.0),
    "k": torch.full((2, 2), 2.0),
    "v": torch.full((2, 2), 3.0),
}


def test_parts_are_put_one_below_the_other_in_float32(tmp_path):
    half = {name: value.half() for name, value in TENSORS.items()} | {"mask": torch.ones(1)}
    found = translated(half, LAYOUT, MODEL, tmp_path)
    assert found["blocks.0.out.weight"].tolist() == [[1, 1], [1, 1], [2, 2], [2, 2], [3, 3], [3, 3]]
    assert torch.equal(found["embedding.weight"], TENSORS["wte"])
    assert {value.dtype for value in found.values()} == {torch.float32}


def test_matrices_of_blocks_alone_may_be_transposed(tmp_path):
    layout = Layout({"embedding.weight": ("wte",), "blocks.0.out.weight": ("c",)}, unused="", transposed=True)
    matrix = torch.arange(12.0).view(2, 6)
    found = translated({"wte": TENSORS["wte"], "c": matrix}, layout, MODEL, tmp_path)
    assert torch.equal(found["blocks.0.out.weight"], matrix.T)
    assert torch.equal(found["embedding.weight"], TENSORS["wte"])
    with pytest.raises(InputError, match=r"c is \[6, 2\], and the config says \[2, 6\]"):
        translated({"wte": TENSORS["wte"], "c": matrix.T}, layout, MODEL, tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"more": torch.ones(1)}, "has more, which a model with this config doesn't use"),
        ({"masks": torch.ones(1)}, "has masks, which"),
        ({"k": None}, "lacks k"),
        ({"k": None, "more": torch.ones(1)}, "lacks k and has more, which"),
        ({f"more{i}": torch.ones(1) for i in range(9)}, "has more0, more1, more2, more3 and 5 more, which"),
        ({"k": torch.ones(2, 3)}, r"k is \[2, 3\], and the config says \[2, 2\]"),
        ({"wte": torch.ones(5, 2, dtype=torch.int8)}, "wte is torch.int8, and only weights in floating point"),
    ],
)
def test_what_is_not_the_models_is_refused_by_the_checkpoints_names(tmp_path, changes, sentence):
    tensors = {name: value for name, value in (TENSORS | changes).items() if value is not None}
    with pytest.raises(InputError, match=sentence):
        translated(tensors, LAYOUT, MODEL, tmp_path)


def test_two_tensors_with_one_meaning_are_refused():
    assert renamed({"a.x": TENSORS["q"]}, lambda name: name.removeprefix("a.")) == {"x": TENSORS["q"]}
    with pytest.raises(InputError, match=r"has the tensor x twice, once as a\.x"):
        renamed({"x": TENSORS["q"], "a.x": TENSORS["k"]}, lambda name: name.removeprefix("a."))


def test_the_output_is_tied_where_the_file_has_one_matrix_or_the_same_twice():
    one, other = torch.ones(3, 2), torch.zeros(3, 2)
    for tensors, says_tied, expected in [
        ({"in": one}, True, ("in", True)),
        ({"in": one}, False, ("in", False)),
        ({"out": one}, True, ("out", True)),
        ({"out": one}, False, ("in", False)),
        ({"in": one, "out": one.clone().half()}, True, ("in", True)),
        ({"in": one, "out": one.clone()}, False, ("in", False)),
        ({"in": one, "out": other}, True, ("in", False)),
    ]:
        assert embedding_source(tensors, "in", "out", tied=says_tied) == expected


def shards(folder, weight_map):
    save_file({"a": torch.ones(1), "b": torch.zeros(1)}, folder / "model-1.safetensors")
    save_file({"c": torch.ones(2)}, folder / "model-2.safetensors")
    index = {"metadata": {"total_size": 16}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards_are_read_together_and_must_be_what_their_index_says(tmp_path):
    places = {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}
    shards(tmp_path, places)
    assert {name: len(value) for name, value in read_tensors(tmp_path, "X").items()} == {"a": 1, "b": 1, "c": 2}
    shards(tmp_path, places | {"d": "model-2.safetensors"})
    with pytest.raises(InputError, match=r"model-2.safetensors doesn't hold the tensors that .*index.json says: d\."):
        read_tensors(tmp_path, "X")
    shards(tmp_path, {name: file for name, file in places.items() if name != "b"})
    with pytest.raises(InputError, match=r"model-1.safetensors doesn't hold the tensors that .*index.json says: b\."):
        read_tensors(tmp_path, "X")
    shards(tmp_path, places | {"d": "model-3.safetensors"})
    with pytest.raises(InputError, match=r"No such file or directory: .*model-3.safetensors"):
        read_tensors(tmp_path, "X")
    for torn in ({}, {"weight_map": ["a"]}, {"weight_map": {"a": ["model-1.safetensors"]}}):
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(torn))
        with pytest.raises(InputError, match=r"index\.json doesn't say in weight_map|No such file"):
            read_tensors(tmp_path, "X")
