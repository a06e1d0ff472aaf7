"""A plain nanoGPT-style model and training loop: the baseline of the project's own training loop."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["BATCH", "POSITIONS", "SIZES", "Yardstick", "YardstickStep"]

SIZES = {"layers": 4, "heads": 4, "width": 128, "context": 64}
BATCH = 12
POSITIONS = "learned-table"


class YardstickBlock(nn.Module):
    """nanoGPT's block (model.py): pre-norm, causal attention by PyTorch's own kernel, GELU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, state: Tensor) -> Tensor:
        """Map the state [B, L, W] to the next block's state."""
        batch, length, width = state.shape
        split = self.attention(self.norm1(state)).split(width, dim=2)
        q, k, v = (part.view(batch, length, self.heads, width // self.heads).transpose(1, 2) for part in split)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        state = state + self.project(mixed.transpose(1, 2).contiguous().view(batch, length, width))
        result: Tensor = state + self.down(F.gelu(self.up(self.norm2(state))))
        return result


class Yardstick(nn.Module):
    """nanoGPT's model with the sizes of the character recipe, learned positions, tied output."""

    def __init__(self, vocabulary: int, layers: int, heads: int, width: int, context: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(YardstickBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of windows [B, L]."""
        state = self.tokens(inputs) + self.positions(torch.arange(inputs.shape[1], device=inputs.device))
        for block in self.blocks:
            state = block(state)
        logits = F.linear(self.norm(state), self.tokens.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))


class YardstickStep:
    """nanoGPT's training step (train.py): draw windows, forward, backward, clip, AdamW, cosine."""

    def __init__(self, vocabulary: int, data: Tensor) -> None:
        self.model, self.data, self.number = Yardstick(vocabulary, **SIZES).to(data.device), data, 0
        matrices = [parameter for parameter in self.model.parameters() if parameter.dim() >= 2]
        vectors = [parameter for parameter in self.model.parameters() if parameter.dim() < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)

    def __call__(self) -> Tensor:
        """Take a training step and return its loss."""
        rate = 1e-4 + 0.5 * (1 + math.cos(math.pi * self.number / 2000)) * 9e-4
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        context = SIZES["context"]
        starts = torch.randint(len(self.data) - context, (BATCH,)).tolist()
        inputs = torch.stack([self.data[start : start + context] for start in starts]).long()
        targets = torch.stack([self.data[start + 1 : start + 1 + context] for start in starts]).long()
        loss: Tensor = self.model(inputs, targets)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.number += 1
        return loss.detach()
