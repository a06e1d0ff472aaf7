"""The Transformer, with a slot for each function that can be replaced, and decoding with it."""

from trans4init.ablations.settings.model import TransformerConfig
from trans4init.ablations.transformer.decoding import beam_search, greedy, sample
from trans4init.ablations.transformer.huggingface import load_pretrained
from trans4init.ablations.transformer.model import Transformer

__all__ = ["Transformer", "TransformerConfig", "beam_search", "greedy", "load_pretrained", "sample"]
