"""On a GPU: the same model, the same arms, close to the same numbers as on the CPU."""

import pytest
import torch

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.data.text import TextConfig
from trans4init.ablations.functions import Domain
from trans4init.ablations.nets import build_net
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.tasks.text import TextTask
from trans4init.ablations.training.loop import train
from trans4init.ablations.transformer import Transformer, TransformerConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
]


@pytest.mark.parametrize(
    "arm", ["analytic", "learned-from-scratch", "random-frozen", "free-table", "corrected", "none"]
)
def test_an_arm_trains_on_a_gpu_as_it_does_on_the_cpu(text_file, arm):
    losses = {}
    for device in ("cpu", "cuda"):
        task = TextTask(TextConfig(source=str(text_file), evaluation_tokens=64), 8, torch.device(device))
        model = Transformer(TransformerConfig(layers=1, width=16, heads=2, vocabulary=256, context=8)).to(device)
        net = build_net("fourier-mlp", Domain(0, 31, integer=True), 16, hidden=(8,))
        record = apply_arm(model, "position", arm, net)
        found = train(model, task, TrainingConfig(steps=10, batch=4), record, seed=0, split="evaluate")
        losses[device] = [m.value for m in found if m.metric.name == "training_loss"]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)
