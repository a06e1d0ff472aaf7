"""Numbers, files and sizes without bounds are refused in a sentence before any work."""

import os

import pytest

from trans4init.ablations.data.text import TextConfig, read_text
from trans4init.ablations.errors import InputError
from trans4init.ablations.fit import fit
from trans4init.ablations.functions import Domain
from trans4init.ablations.nets import build_net
from trans4init.ablations.settings.memory import check_memory, least_bytes
from trans4init.ablations.settings.model import ModelSize
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.transformer import Transformer, TransformerConfig

LARGE = "1" + 5000 * "0"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "trials = 2",
            f"trials = 2\nseed = {2**63}",
            r"\[tuning\] seed must be a whole number from 0 to 9,223,372,036,854,773, and",
        ),
        (
            "steps = 20",
            f"steps = 20\nseed = {2**64}",
            r"\[fit\] seed must be a whole number from 0 to 9,223,372,036,854,775,807, and",
        ),
        ("width = 8", f"width = {10**12}", r"\[model\] width must be a whole number from 1 to 2,147,483,647, and"),
        (
            "width = 8",
            "width = 8\nnormalization_epsilon = inf",
            "normalization_epsilon must be a finite number above 0, and inf was given",
        ),
        ("log = true", "logs = true", r"\[tuning.space.learning_rate\] unknown key 'logs'; did you mean 'log'?"),
        ("steps = 20", f"steps = {LARGE}", "is not valid TOML: Exceeds the limit"),
        ('name = "tiny"', f"deep = {3000 * '['}{3000 * ']'}", "its values are nested too deeply"),
    ],
)
def test_what_has_no_bound_is_refused_as_the_file_is_read(tiny_study, old, new, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        load_study(str(tiny_study((old, new))))
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_a_file(tiny_study):
    path = tiny_study()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_study(str(path)).name == "tiny"


def test_a_model_beyond_this_machine_is_refused():
    size, training = ModelSize(layers=4, width=2**30, heads=2), TrainingConfig(steps=1, batch=1)
    with pytest.raises(InputError, match=r"training this model .* takes at least [\d,]+ GiB, and this machine has"):
        check_memory(size, training)
    with pytest.raises(InputError, match="making this model"):
        Transformer(TransformerConfig(layers=4, width=2**30, heads=2))
    with pytest.raises(InputError, match="has more values than this machine's memory holds"):
        build_net("mlp-gelu", Domain(-4, 4, integer=False), 1, hidden=(10**9, 10**6))


def test_the_estimate_is_no_more_than_the_model_takes():
    for changes in ({}, {"gated": True}, {"key_value_heads": 1}, {"kind": "encoder-decoder", "encoder_layers": 3}):
        model = Transformer(TransformerConfig(layers=2, width=32, heads=4, **changes))
        held = sum(4 * value.numel() for value in model.parameters())
        assert 0.7 * held < least_bytes(ModelSize(layers=2, width=32, heads=4, **changes)) <= held


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_a_seed_that_results_can_not_keep_is_refused(seed):
    with pytest.raises(InputError, match=f"a seed is from 0 to {2**63 - 1}, and {seed} was given"):
        fit("gelu", "spline", seed=seed)


def test_a_text_is_a_regular_file(tmp_path, monkeypatch):
    """Reading a pipe that nobody writes to would wait for ever."""
    os.mkfifo(tmp_path / "pipe.txt")
    for path in (tmp_path / "pipe.txt", "/dev/zero"):
        with pytest.raises(InputError, match="is no regular file"):
            read_text(TextConfig(source=str(path)))
    (tmp_path / "long.txt").write_text("0123456789")
    monkeypatch.setattr("trans4init.ablations.data.text.LARGEST_TEXT", 9)
    with pytest.raises(InputError, match="has 10 bytes; at most 9 are read"):
        read_text(TextConfig(source=str(tmp_path / "long.txt")))
