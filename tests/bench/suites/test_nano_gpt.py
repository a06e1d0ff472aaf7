"""The baseline of training speed has the same parameters as the project's model, and learns."""

import torch

from trans4init.ablations.transformer import Transformer, TransformerConfig
from trans4init.bench.suites.nano_gpt import POSITIONS, SIZES, Yardstick, YardstickStep


def test_the_yardstick_has_the_shapes_of_the_model():
    ours = Transformer(TransformerConfig(**SIZES, position=POSITIONS, vocabulary=65))
    plain = Yardstick(65, **SIZES)
    shapes = [sorted(tuple(parameter.shape) for parameter in model.parameters()) for model in (ours, plain)]
    assert shapes[0] == shapes[1]


def test_the_yardstick_learns():
    torch.manual_seed(0)
    data = torch.arange(400) % 7
    step = YardstickStep(7, data)
    inputs, targets = data[:64][None], data[1:65][None]
    before = step.model(inputs, targets).item()
    for _ in range(15):
        step()
    assert step.model(inputs, targets).item() < before - 0.5
