"""Make a Transformer with wider feed-forward layers that starts as the narrower one."""

import torch

from trans4init.ablations.settings.model import TransformerConfig
from trans4init.ablations.transformer.feed_forward import FeedForward
from trans4init.ablations.transformer.model import Transformer

__all__ = ["widened"]


@torch.no_grad()
def widened(config: TransformerConfig, values: int, seed: int = 0) -> Transformer:
    """Return a Transformer that has at least `values` more values in its feed-forward layers than the config's.

    All of these layers get the same number of hidden units, the least that suffices. The model has the initial values
    of `Transformer(config, seed)` where that has any, the new units' inputs are drawn, and their outputs are 0: it
    computes the same up to rounding, since a sum with more terms, which are 0, may be added up in another order.
    """
    narrow = Transformer(config, seed)
    layers = {path: layer for path, layer in narrow.named_modules() if isinstance(layer, FeedForward)}
    inner = next(iter(layers.values())).out.in_features
    into_unit = 2 if config.gated else 1
    per_unit = len(layers) * (config.width * (into_unit + 1) + config.bias * into_unit)
    wide = Transformer(config.model_copy(update={"feed_forward": inner + -(-values // per_unit)}), seed)
    for path, layer in layers.items():
        wider = wide.get_submodule(path)
        assert isinstance(wider, FeedForward)
        for projection, source in ((wider.up, layer.up), (wider.gate, layer.gate)):
            if projection is not None and source is not None:
                projection.weight[:inner] = source.weight
        wider.out.weight.zero_()
        wider.out.weight[:, :inner] = layer.out.weight
    return wide
