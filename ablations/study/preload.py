"""Import all that a run imports, torch's lazy parts too: once, in the server that worker processes are forked from."""

import num2words  # noqa: F401  these are otherwise imported in every run, by the first task that needs them
import pooch  # noqa: F401
import safetensors.torch  # noqa: F401
import tokenizers  # noqa: F401
import torch

import trans4init.ablations.study.work  # noqa: F401  imported for the forked workers

# The first optimiser of a process imports torch._dynamo, which takes longer than a third of a short run.
torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], fused=True)
