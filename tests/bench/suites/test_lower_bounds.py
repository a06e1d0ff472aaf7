"""Lower bounds on training and decoding agree with PyTorch's own count of the operations."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from trans4init.ablations.transformer import Transformer, TransformerConfig
from trans4init.bench.suites.lower_bounds import decoding_lower_bound, training_lower_bound

BATCH = 3


def counted(work):
    """Return PyTorch's count of the matrices' operations; attention's it doesn't count on a CPU."""
    with FlopCounterMode(display=False) as counter:
        work()
    counts = counter.get_flop_counts()["Global"]
    assert all(str(name).startswith("aten.mm") for name in counts)
    return sum(counts.values())


@pytest.mark.parametrize("special", [{}, {"key_value_heads": 1}, {"gated": True}, {"feed_forward": 40}])
def test_a_training_step_needs_what_pytorch_counts(special):
    config = TransformerConfig(layers=2, width=16, heads=2, context=12, vocabulary=50, **special)
    model = Transformer(config)
    tokens = torch.randint(50, (BATCH, 12))
    matrices = counted(lambda: model(tokens).sum().backward())
    least = training_lower_bound(config, 50, BATCH)
    assert least.flop - matrices == pytest.approx(3.5 * 2 * BATCH * 4 * 12**2 * 16 / 2)
    parameters = sum(value.numel() for value in model.parameters() if value.dim() == 2)
    assert least.bytes == 6 * 4 * parameters + 8 * BATCH * 13


def test_decoding_needs_every_token_once():
    config = TransformerConfig(layers=2, width=16, heads=2, context=12, vocabulary=50)
    model = Transformer(config)
    with torch.no_grad():
        matrices = counted(lambda: model(torch.randint(50, (BATCH, 11))))
    least = decoding_lower_bound(config, 50, BATCH, 4, 8)  # 4 tokens of prompt and 8 new ones: 11 are inputs
    unused = 2 * BATCH * 50 * 16 * 3  # no output is needed after the first three tokens of the prompt
    assert least.flop == matrices - unused + BATCH * 2 * 4 * 16 * 66
    assert least.bytes == 4 * sum(v.numel() for v in model.parameters() if v.dim() == 2) + 8 * BATCH * 12


def test_other_models_have_no_lower_bound():
    config = TransformerConfig(kind="encoder", layers=1, width=8, heads=1, vocabulary=5)
    with pytest.raises(ValueError, match="kind encoder"):
        training_lower_bound(config, 5, 1)
