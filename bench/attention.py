"""`python -m trans4init.bench.attention [--out FOLDER]`: our attention beside its peers, forward and backward.

Everything runs interleaved in one process on random data, on a GPU bfloat16 with its L2 cache flushed before each
measurement: 16k tokens a batch, 16 heads. Rates are fractions of the matmul rate measured in the same run; FLOP are
4·B·H·Lq·Lk·D forward, half of it causal, 2.5 times that backward. On a CPU a training step with a bias is timed.
"""

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from trans4init.bench.side_by_side import (
    MATMUL_RATE,
    Case,
    Parts,
    Timing,
    in_turns,
    machine_rates,
    print_table,
    save,
)
from trans4init.kernels.attention import RelativeBias, attention

__all__ = ["CPU_SETTINGS", "Problem", "Setting", "implementations", "main", "ratios"]

HEADS, TOKENS, HIDDEN = 16, 16384, 32
LONG = 131_072  # a training step on one GPU at this length shows that memory for the bias is linear
CPU_SETTINGS = tuple(
    itertools.product(
        ((1, 8, 64, 64), (12, 4, 64, 32), (1, 8, 256, 64), (1, 8, 512, 64), (1, 4, 1024, 32)), (True, False)
    )
)
"""Batch, heads, length, head dim, and whether it is causal."""


@dataclass(frozen=True)
class Setting:
    """One size of problem."""

    batch: int
    heads: int
    length: int
    head_dim: int
    causal: bool

    @property
    def flop(self) -> float:
        """Of the forward pass."""
        products = 4.0 * self.batch * self.heads * self.length**2 * self.head_dim
        return products / 2 if self.causal else products

    def __str__(self) -> str:
        """As a row of the table names it."""
        kind = "causal" if self.causal else "full"
        return f"B={self.batch} H={self.heads} L={self.length} D={self.head_dim} {kind}"


class Problem:
    """The tensors of a setting: q, k, v, and an MLP of i - j that makes the bias."""

    def __init__(self, setting: Setting, device: str) -> None:
        torch.manual_seed(0)
        self.setting, self.device = setting, device
        self.dtype = torch.bfloat16 if device == "cuda" else torch.float32
        shape = (setting.batch, setting.heads, setting.length, setting.head_dim)
        self.qkv = [torch.randn(shape, device=device, dtype=self.dtype, requires_grad=True) for _ in range(3)]
        self.gradient = torch.randn(shape, device=device, dtype=self.dtype)
        layers = (torch.nn.Linear(1, HIDDEN), torch.nn.GELU(), torch.nn.Linear(HIDDEN, setting.heads))
        self.mlp = torch.nn.Sequential(*layers).to(device)

    def table(self) -> RelativeBias:
        """The MLP at the 2L - 1 distances."""
        length = self.setting.length
        distance = torch.arange(1 - length, length, device=self.device, dtype=torch.float32) / length
        return RelativeBias(self.mlp(distance[:, None]).T.contiguous())

    def full(self) -> Tensor:
        """The MLP at all L² pairs."""
        place = torch.arange(self.setting.length, device=self.device, dtype=torch.float32) / self.setting.length
        bias: Tensor = self.mlp((place[:, None] - place)[..., None]).permute(2, 0, 1)
        return bias

    def parts(self, call: Callable[[], Tensor], learned: bool) -> Parts:
        """The forward pass, the backward pass of what it left, and both at once."""
        leaves, held = [*self.qkv, *(self.mlp.parameters() if learned else ())], []

        def forward() -> None:
            held.append(call())

        def backward() -> None:
            torch.autograd.grad(held.pop(), leaves, self.gradient)

        def step() -> None:
            torch.autograd.grad(call(), leaves, self.gradient)

        return {"forward": forward, "backward": backward, "forward + backward": step}

    def ours(self, impl: str, bias: Callable[[], RelativeBias | Tensor] | None = None, **options: Any) -> Parts:
        """Our function with an implementation."""

        def call() -> Tensor:
            given: Any = {"bias": bias() if bias else None, "causal": self.setting.causal, "impl": impl} | options
            out: Tensor = attention(*self.qkv, **given)
            return out

        return self.parts(call, bias is not None)

    def sdpa(self, backend: SDPBackend) -> Parts:
        """PyTorch's kernel of that name, without a bias."""
        q, k, v = self.qkv

        def call() -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=self.setting.causal)

        return self.parts(call, learned=False)


def implementations(problem: Problem, gpu: bool) -> dict[str, Callable[[], Parts]]:
    """By name: those of a GPU, or those that can take a training step with a bias on a CPU."""
    if not gpu:
        return {
            "auto": lambda: problem.ours("auto", problem.table),
            "eager": lambda: problem.ours("reference", problem.table),
            "sdpa with a mask": lambda: problem.ours("sdpa", problem.table),
        }
    return {
        "triton": lambda: problem.ours("triton"),
        "sdpa flash": lambda: problem.sdpa(SDPBackend.FLASH_ATTENTION),
        "sdpa cudnn": lambda: problem.sdpa(SDPBackend.CUDNN_ATTENTION),
        "flex": lambda: problem.ours("flex"),
        "triton, bias": lambda: problem.ours("triton", problem.table),
        "triton, bias, deterministic": lambda: problem.ours("triton", problem.table, deterministic=True),
        "flex, bias": lambda: problem.ours("flex", problem.table),
        "eager table, bias": lambda: problem.ours("reference", problem.table),
        "eager full MLP, bias": lambda: problem.ours("reference", problem.full),
    }


def ratios(setting: Setting, timings: Sequence[Timing]) -> list[tuple[str, float]]:
    """What a bias costs, what others take for it, and what determinism costs: each a quotient of two medians."""
    found = {(timing.name, timing.part): timing for timing in timings}
    pairs = [
        ("bias, forward: share of its own speed without", ("triton", "forward"), ("triton, bias", "forward")),
        ("bias, backward: share of its own speed without", ("triton", "backward"), ("triton, bias", "backward")),
        *(
            (
                f"bias, a step: times faster than {peer}",
                (peer, "forward + backward"),
                ("triton, bias", "forward + backward"),
            )
            for peer in ("flex, bias", "eager table, bias", "eager full MLP, bias")
        ),
        (
            "deterministic backward: times its own time",
            ("triton, bias, deterministic", "backward"),
            ("triton, bias", "backward"),
        ),
    ]
    rows = []
    for label, above, below in pairs:
        top, bottom = (found[key].median if key in found else None for key in (above, below))
        if top is not None and bottom is not None:
            rows.append((label, top / bottom))
    plain, biased = (found.get((name, "forward + backward")) for name in ("triton", "triton, bias"))
    if plain and biased and plain.peak_bytes is not None and biased.peak_bytes is not None:
        rows.append(("bias: extra KiB a head", (biased.peak_bytes - plain.peak_bytes) / 1024 / setting.heads))
    return rows


def main() -> None:
    """Print Markdown tables for the device that is there, and keep the measurements where --out says."""
    parser = argparse.ArgumentParser(prog="python -m trans4init.bench.attention", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="measurements of each implementation")
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 8192], help="sequence lengths on a GPU")
    parser.add_argument("--out", type=Path, help="folder for the measurements, as Parquet")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rates = machine_rates(device)
    print(*(f"{metric.name} {rate:.3g} {metric.unit}" for metric, rate in rates.items()), sep=", ")
    found: list[tuple[Case, list[Timing]]] = []
    for setting in settings(device, arguments.lengths):
        timings = in_turns(implementations(Problem(setting, device), device == "cuda"), arguments.rounds, device)
        found.append((Case("attention", str(setting)), timings))
        forward = 1e3 * setting.flop / rates[MATMUL_RATE]  # milliseconds at the matmul rate
        limits = {"forward": forward, "backward": 2.5 * forward, "forward + backward": 3.5 * forward}
        print_table(str(setting), timings, "auto" if device == "cpu" else "triton, bias", "of the matmul rate", limits)
        for label, value in ratios(setting, timings):
            print(f"\n{label}: {value:.2f}")
    if device == "cuda":
        setting = Setting(1, HEADS, LONG, 128, True)
        problem = Problem(setting, device)
        timings = in_turns({"triton, bias": lambda: problem.ours("triton", problem.table)}, 2, device)
        found.append((Case("attention", str(setting)), timings))
        print_table(f"{setting}: it trains", timings, "triton, bias")
    if arguments.out is not None:
        print(*save(found, rates, arguments.out), sep="\n")


def settings(device: str, lengths: Sequence[int]) -> list[Setting]:
    """The sizes that are measured on a device."""
    if device == "cpu":
        return [Setting(*sizes, causal) for sizes, causal in CPU_SETTINGS]
    sizes = itertools.product(lengths, (64, 128), (False, True))
    return [Setting(TOKENS // length, HEADS, length, dim, causal) for length, dim, causal in sizes]


if __name__ == "__main__":
    main()
