"""The pool's trainings differ by their seeds alone, and its arms without a difference have none."""

import dataclasses

import torch

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.study.calibration import whole_path
from trans4init.ablations.study.calibration.pool import train_pool
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.transformer import Transformer, TransformerConfig


def test_trainings_of_a_pool_differ_by_their_seeds_alone_and_can_be_had_again():
    first, again = list(train_pool(3)), list(train_pool(2))
    losses = [record.last("validation_loss") for record in first]
    assert [record.seed for record in first] == [0, 1, 2]
    assert len(set(losses)) == 3
    assert [record.last("validation_loss") for record in again] == losses[:2]
    bare = [dataclasses.replace(r, run_id="", seed=0, measurements=r.measurements[:1], created_at=None) for r in first]
    assert bare[0] == bare[1] == bare[2]


def test_permuted_positions_are_the_same_rows_in_another_order_of_dimensions(tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(whole_path._study(3))
    spec = load_study(str(file))
    assert len(spec.cells()) == 9
    config = TransformerConfig(layers=1, width=16, heads=2, vocabulary=8, context=8, position="sinusoidal")
    plain, orders = Transformer(config), []
    for arm in spec.arms[1:3]:
        model = Transformer(config)
        apply_arm(model, "position", arm, seed=5)
        rows, changed = (net.position(torch.arange(8)) for net in (plain, model))
        assert torch.equal(rows.sort(dim=-1).values, changed.sort(dim=-1).values)
        orders.append(changed)
    assert not torch.equal(*orders)
