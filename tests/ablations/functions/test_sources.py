"""Tests that functions are what released code computes, where an installed package has that code."""

import math

import pytest
import torch
from torch.nn import functional as F
from transformers import GPTNeoXConfig, LlamaConfig, ViTMAEConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding
from transformers.models.gptj import modeling_gptj
from transformers.models.ibert.quant_modules import IntGELU, IntSoftmax
from transformers.models.llama import modeling_llama
from transformers.models.m2m_100.modeling_m2m_100 import M2M100SinusoidalPositionalEmbedding
from transformers.models.t5.modeling_t5 import T5Attention
from transformers.models.vit_mae.modeling_vit_mae import ViTMAEEmbeddings
from transformers.models.xlm.modeling_xlm import create_sinusoidal_embeddings

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import Domain, get_function
from trans4init.ablations.functions.position_rotary import rotate
from trans4init.ablations.functions.position_two_sided import two_sided

SCALINGS = {
    "rope": ("default", {}),
    "rope-interpolated": ("linear", {"factor": 4.0}),
    "rope-yarn": ("yarn", {"factor": 4.0, "original_max_position_embeddings": 512}),
    "rope-llama3": (
        "llama3",
        {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    ),
}


def positions(count):
    return torch.arange(count, dtype=torch.float64)


def close(ours, theirs, tolerance=1e-6):
    torch.testing.assert_close(ours, theirs.to(ours), rtol=0, atol=tolerance)


TORCH = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu-tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax-exp": torch.exp,
    "softmax-row": lambda x: F.softmax(x, dim=-1),
    "reciprocal": torch.reciprocal,
}


@pytest.mark.parametrize("name", TORCH)
def test_plain_functions_are_those_of_pytorch(name):
    inputs = torch.linspace(-6, 6, 121, dtype=torch.float64) + 1e-3
    close(get_function(name).analytic(inputs), TORCH[name](inputs), 1e-12)


def test_the_factors_of_norms_and_of_attention_are_those_of_pytorch():
    state = torch.randn(3, 4, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    centred = state - state.mean(-1, keepdim=True)
    factor = get_function("layernorm-rsqrt").analytic(centred.square().mean(-1, keepdim=True))
    close(centred * factor, F.layer_norm(state, (16,)), 1e-12)
    factor = get_function("rmsnorm-rsqrt").analytic(state.square().mean(-1, keepdim=True))
    close(state * factor, F.rms_norm(state, (16,), eps=1e-5), 1e-12)
    scale = get_function("attention-scale").analytic(torch.tensor([5.0], dtype=torch.float64), head_dim=16)
    weights = get_function("softmax-row").analytic(scale * state @ state.transpose(-1, -2))
    close(weights @ state, F.scaled_dot_product_attention(state, state, state), 1e-12)


@pytest.mark.parametrize("width", [4, 6, 64])
def test_sinusoids_are_those_of_xlm_and_of_tensor2tensor(width):
    theirs = create_sinusoidal_embeddings(50, width, torch.zeros(50, width))
    close(get_function("sinusoidal").analytic(positions(50), width=width), theirs)
    theirs = M2M100SinusoidalPositionalEmbedding.get_embedding(50, width)
    close(get_function("sinusoidal-halves").analytic(positions(50), width=width), theirs, 1e-4)  # float32 angles


@pytest.mark.parametrize(("image", "patch"), [(24, 4), (32, 16)])
def test_2d_sinusoids_are_those_of_masked_autoencoders_with_zeros_for_the_class_token(image, patch):
    embeddings = ViTMAEEmbeddings(ViTMAEConfig(image_size=image, patch_size=patch, hidden_size=16))
    embeddings.initialize_weights()
    theirs, columns = embeddings.position_embeddings[0], image // patch
    function = get_function("sinusoidal-2d")
    with_class = function.analytic(positions(columns**2 + 1), width=16, columns=columns, class_tokens=1)
    close(with_class, theirs)
    assert with_class[0].count_nonzero() == 0
    close(function.analytic(positions(columns**2), width=16, columns=columns), theirs[1:])


@pytest.mark.parametrize("heads", [1, 8, 12])
def test_alibi_falls_as_in_bloom(heads):
    theirs = build_alibi_tensor(torch.ones(1, 40), heads, torch.float64).view(heads, 40)  # counted from the first key
    close(get_function("alibi").analytic(positions(40), heads=heads), -theirs, 1e-5)


def test_buckets_are_those_of_t5_on_one_and_on_two_sides():
    distances, domain = torch.arange(-600, 600), Domain(0, 599, integer=True)
    one, two = get_function("t5"), two_sided(get_function("t5"))
    for function, bidirectional in ((one, False), (two, True)):
        shown = distances if bidirectional else distances.clamp_min(0)
        theirs = T5Attention._relative_position_bucket(-shown, bidirectional=bidirectional)
        assert torch.equal(function.table_index(shown, domain, heads=2), theirs)


@pytest.mark.parametrize("base", [None, 10000, 500000])
@pytest.mark.parametrize("head_dim", [16, 64, 128])
@pytest.mark.parametrize("name", SCALINGS)
def test_scaled_ropes_are_those_of_released_checkpoints(name, head_dim, base):
    function, (kind, settings) = get_function(name), SCALINGS[name]
    shape = {"head_dim": head_dim} | ({} if base is None else {"base": base})
    theta = base or (500000 if name == "rope-llama3" else 10000)
    config = LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        head_dim=head_dim,
        rope_parameters={"rope_type": kind, "rope_theta": theta, **settings},
    )
    init = modeling_llama.LlamaRotaryEmbedding.compute_default_rope_parameters
    theirs, temperature = (init if kind == "default" else ROPE_INIT_FUNCTIONS[kind])(config)
    torch.testing.assert_close(function.frequencies(**shape).float(), theirs, rtol=1e-5, atol=0)
    angles = 7 * function.frequencies(**shape)
    values = function.analytic(torch.tensor([7.0], dtype=torch.float64), **shape)[0]
    torch.testing.assert_close(values, temperature * torch.cat([angles.cos(), angles.sin()]))


def test_ntk_scaling_is_that_of_a_dynamic_rope_at_the_length_with_that_factor():
    """At length s, the dynamic form has the factor f s / s0 − (f − 1): 4 for f = 4 and s = 7/4 s0."""
    settings = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    config = LlamaConfig(
        hidden_size=128, num_attention_heads=2, head_dim=64, max_position_embeddings=400, rope_parameters=settings
    )
    theirs, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, seq_len=700)
    torch.testing.assert_close(get_function("rope-ntk").frequencies(head_dim=64).float(), theirs, rtol=1e-5, atol=0)


def test_the_papers_ramp_of_yarn_is_another_one():
    paper, released = (get_function(name).frequencies(head_dim=64) for name in ("rope-yarn-paper", "rope-yarn"))
    plain = get_function("rope").frequencies(head_dim=64)
    turns = 512 * plain / (2 * math.pi)
    share = ((turns - 1) / 31).clamp(0, 1)
    torch.testing.assert_close(paper, (1 - share) * plain / 4 + share * plain)
    assert (paper / released - 1).abs().max() > 0.2


def test_partial_rope_turns_what_gpt_neox_turns():
    settings = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}
    theirs = GPTNeoXRotaryEmbedding(GPTNeoXConfig(hidden_size=128, num_attention_heads=2, rope_parameters=settings))
    torch.testing.assert_close(get_function("rope-partial").frequencies(head_dim=64).float(), theirs.inv_freq)


@pytest.mark.parametrize("interleaved", [False, True])
def test_pairs_are_turned_as_in_llama_or_interleaved_as_in_gptj(interleaved):
    q, k = torch.randn(2, 3, 4, 11, 16, generator=torch.Generator().manual_seed(0)).unbind()  # [B, H, L, D]
    values = get_function("rope").analytic(torch.arange(11.0), head_dim=16)
    cos, sin = values.chunk(2, dim=-1)
    turned = [rotate(x, values, pairs=8, key=False, interleaved=interleaved) for x in (q, k)]
    if interleaved:
        theirs = [modeling_gptj.apply_rotary_pos_emb(x.transpose(1, 2), sin[None], cos[None]) for x in (q, k)]
        theirs = [x.transpose(1, 2) for x in theirs]
    else:
        theirs = modeling_llama.apply_rotary_pos_emb(q, k, cos.repeat(1, 2)[None], sin.repeat(1, 2)[None])
    for ours, expected in zip(turned, theirs, strict=True):
        close(ours, expected)
    partly = rotate(q, values[:, [0, 1, 8, 9]], pairs=2, key=True, interleaved=interleaved)
    assert torch.equal(partly[..., 4:], q[..., 4:])
    assert not torch.equal(partly[..., :4], q[..., :4])


def test_i_exp_is_the_polynomial_of_i_bert_in_small_steps():
    """Its integers are multiples of a scaling factor, and ln 2 is rounded to 0.6931."""
    step, inputs = torch.tensor(1e-5, dtype=torch.float64), torch.linspace(-8, 0, 4001, dtype=torch.float64)
    values, scale = IntSoftmax(8, quant_mode=True).int_exp(inputs / step, step)
    theirs = values * scale
    close(get_function("i-exp").analytic(inputs), theirs, 1e-4)
    assert (get_function("i-exp-paper").analytic(inputs) - theirs).abs().max() > 2e-4
    assert get_function("i-exp").analytic(torch.zeros(1)).item() == 1


def test_i_gelu_is_that_of_i_bert_in_small_steps():
    step, inputs = torch.tensor([1e-5], dtype=torch.float64), torch.linspace(-6, 6, 4001, dtype=torch.float64)
    theirs, _ = IntGELU()(inputs, step)
    close(get_function("i-gelu").analytic(inputs), theirs, 1e-4)


def test_kerple_starts_where_the_authors_code_draws_from():
    """ParallelKerpleLog is −p ln(1 + a d) and ParallelKerplePower −a d^p, with p from (0, 2) and a from (0, 1)."""
    one, e = torch.tensor([1.0, math.e - 1], dtype=torch.float64)
    power, log = (get_function(f"kerple-{name}") for name in ("power", "log"))
    a = -power.analytic(one[None], heads=4)[:, 0]
    p = (power.analytic(2 * one[None], heads=4)[:, 0] / -a).log2()
    assert sorted(a.tolist()) == pytest.approx([0.125, 0.375, 0.625, 0.875])
    assert sorted(p.tolist()) == pytest.approx([0.25, 0.75, 1.25, 1.75])
    for coefficient, slope in zip(*log.starts(heads=4), strict=True):
        assert coefficient.item() == pytest.approx(2 - 2 * slope.item())
    torch.testing.assert_close(log.analytic(e[None], heads=4)[:, 0], -p * torch.log1p(a * e))


@pytest.mark.parametrize("name", ["rope", "rope-partial", "rope-ntk", "rope-yarn", "xpos"])
def test_the_base_is_a_shape_argument_that_may_be_left_out(name):
    function = get_function(name)
    assert torch.equal(function.frequencies(head_dim=16), function.frequencies(head_dim=16, base=10000))
    slowest = function.frequencies(head_dim=16, base=500000)[-1]
    assert slowest < function.frequencies(head_dim=16)[-1]
    with pytest.raises(InputError, match="needs a base above 1, and 1 was given"):
        function.frequencies(head_dim=16, base=1)
    with pytest.raises(InputError, match=r"takes head_dim \(or with base\), and head_dim, width was given"):
        function.frequencies(head_dim=16, width=1)
