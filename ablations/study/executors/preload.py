"""Imported once by the server that workers are forked from: all that a run imports, torch's lazy parts too."""

import num2words  # noqa: F401  these are otherwise imported by the first that needs them, in every run anew
import pooch  # noqa: F401
import safetensors.torch  # noqa: F401
import tokenizers  # noqa: F401
import torch

import trans4init.ablations.study.work  # noqa: F401  imported for those who fork

# The first optimiser of a process imports torch._dynamo, which takes longer than a third of a short run.
torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
