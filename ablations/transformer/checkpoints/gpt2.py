"""GPT-2: the config and the layout of its checkpoints (transformers' GPT2LMHeadModel and GPT2Model)."""

from torch import Tensor

from trans4init.ablations.settings.model import TransformerConfig
from trans4init.ablations.transformer.checkpoints.activations import ACTIVATIONS
from trans4init.ablations.transformer.checkpoints.config_json import ConfigJson
from trans4init.ablations.transformer.checkpoints.tensors import Layout, embedding_source

__all__ = ["GPT2_CLASSES", "gpt2", "gpt2_name"]

GPT2_CLASSES = ("GPT2LMHeadModel", "GPT2Model")
"""The classes of transformers whose checkpoints can be loaded. GPT2Model has no output layer: it gets the embedding."""

_BLOCK = {
    "attention_norm": "ln_1",
    "attention.queries_keys_values": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "feed_forward_norm": "ln_2",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.out": "mlp.c_proj",
}
"""The parts of a block and their names in a checkpoint."""

_UNUSED = r"h\.\d+\.attn\.(bias|masked_bias)"
"""The causal mask and the score of a hidden key, which older versions of transformers saved as buffers."""


def gpt2_name(name: str) -> str:
    """Return a tensor's name without the prefix that it has in GPT2LMHeadModel."""
    return name.removeprefix("transformer.")


def gpt2(config: ConfigJson, class_name: str | None, tensors: dict[str, Tensor]) -> tuple[TransformerConfig, Layout]:
    """Return the config of a GPT-2 decoder, and where its tensors are: the same for each of its classes.

    The matrices of its blocks are [in, out].
    """
    config.expect(
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False,
        is_encoder_decoder=False,
        pruned_heads={},
        tie_encoder_decoder=False,
    )
    embedding, tied = embedding_source(
        tensors, "wte.weight", "lm_head.weight", tied=config.flag("tie_word_embeddings", True)
    )
    sizes = TransformerConfig.preset(
        "gpt2-small",
        layers=config.count("n_layer", 12, "num_hidden_layers"),
        width=config.count("n_embd", 768, "hidden_size"),
        heads=config.count("n_head", 12, "num_attention_heads"),
        context=config.count("n_positions", 1024, "max_position_embeddings"),
        vocabulary=config.count("vocab_size", 50257),
        feed_forward=config.optional_count("n_inner"),
        activation=config.choice("activation_function", "gelu_new", ACTIVATIONS),
        normalization_epsilon=config.positive("layer_norm_epsilon", 1e-5),
        tied_output=tied,
        dropout=config.share("resid_pdrop", 0.1),
        attention_dropout=config.share("attn_pdrop", 0.1),
        embedding_dropout=config.share("embd_pdrop", 0.1),
    )
    config.refuse_unread(
        "id2label",
        "is_decoder",
        "n_ctx",
        "num_labels",
        "predict_special_tokens",
        "reorder_and_upcast_attn",
        "summary_activation",
        "summary_first_dropout",
        "summary_proj_to_labels",
        "summary_type",
        "summary_use_proj",
    )
    sources: dict[str, tuple[str, ...]] = {"embedding.weight": (embedding,), "position.content.table": ("wpe.weight",)}
    for kind in ("weight", "bias"):
        for layer in range(sizes.layers):
            for name, source in _BLOCK.items():
                sources[f"blocks.{layer}.{name}.{kind}"] = (f"h.{layer}.{source}.{kind}",)
        sources[f"norm.{kind}"] = (f"ln_f.{kind}",)
    if not tied:
        sources["output.weight"] = ("lm_head.weight",)
    return sizes, Layout(sources, _UNUSED + (r"|lm_head\.weight" if tied else ""), transposed=True)
