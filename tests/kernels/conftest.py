"""Seeds PyTorch before each test of the kernels, so that no result depends on which tests ran before."""

import pytest
import torch


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Seed PyTorch's generator: a hook, since hypothesis warns of fixtures that are not set up for each example."""
    torch.manual_seed(0)
