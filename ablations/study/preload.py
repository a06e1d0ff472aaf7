"""Imported once by the server that workers are forked from: all that a run imports, torch's lazy parts too."""

import torch

import trans4init.ablations.study.work  # noqa: F401  imported for those who fork

# The first optimiser of a process imports torch._dynamo, which takes longer than a third of a short run.
torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
