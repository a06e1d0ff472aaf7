"""`python -m trans4init.bench.attention`: our attention and its peers on a GPU, as fractions of its own matmul rate.

Everything runs interleaved in one process on random bfloat16 data, the L2 cache flushed before each measurement:
16k tokens a batch, 16 heads. FLOP are 4·B·H·Lq·Lk·D forward, half of it causal, 2.5 times that backward.
"""

import argparse
import itertools
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from trans4init.kernels.attention import RelativeBias, attention

__all__ = ["Setting", "main", "peers"]

HEADS, TOKENS, HIDDEN = 16, 16384, 32
Call = Callable[[], Tensor]


@dataclass(frozen=True)
class Setting:
    """One size of problem: B = 16k tokens / length."""

    head_dim: int
    length: int
    causal: bool

    @property
    def flop(self) -> float:
        """Of the forward pass."""
        return 4 * TOKENS * HEADS * self.length * self.head_dim / (2 if self.causal else 1)

    def __str__(self) -> str:
        """As a row of the table names it."""
        return f"D={self.head_dim} L={self.length} {'causal' if self.causal else 'full'}"


def peers(setting: Setting, device: str = "cuda") -> tuple[dict[str, Call], list[Tensor]]:
    """Each implementation's forward pass by name, and the leaves of the gradient: q, k, v, the MLP's parameters."""
    length, dim = setting.length, setting.head_dim
    shape = (TOKENS // length, HEADS, length, dim)
    q, k, v = (torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    mlp = torch.nn.Sequential(torch.nn.Linear(1, HIDDEN), torch.nn.GELU(), torch.nn.Linear(HIDDEN, HEADS)).to(device)
    distance = torch.arange(2 * length - 1, device=device, dtype=torch.float32).sub(length - 1).div(length)[:, None]

    def learned() -> RelativeBias:
        return RelativeBias(mlp(distance).T.contiguous())

    def full() -> Tensor:
        place = torch.arange(length, device=device, dtype=torch.float32) / length
        bias: Tensor = mlp((place[:, None] - place)[..., None]).permute(2, 0, 1)
        return bias

    def sdpa(backend: SDPBackend) -> Call:
        def call() -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=setting.causal)

        return call

    causal = setting.causal
    calls: dict[str, Call] = {
        "triton": lambda: attention(q, k, v, causal=causal, impl="triton"),
        "sdpa flash": sdpa(SDPBackend.FLASH_ATTENTION),
        "sdpa cudnn": sdpa(SDPBackend.CUDNN_ATTENTION),
        "flex": lambda: attention(q, k, v, causal=causal, impl="flex"),
        "triton, bias": lambda: attention(q, k, v, bias=learned(), causal=causal, impl="triton"),
        "triton, bias, deterministic": lambda: attention(
            q, k, v, bias=learned(), causal=causal, impl="triton", deterministic=True
        ),
        "flex, bias": lambda: attention(q, k, v, bias=learned(), causal=causal, impl="flex"),
        "eager table, bias": lambda: attention(q, k, v, bias=learned(), causal=causal, impl="reference"),
        "eager full MLP, bias": lambda: attention(q, k, v, bias=full(), causal=causal, impl="reference"),
    }
    return calls, [q, k, v, *mlp.parameters()]


def measure(calls: dict[str, Call], leaves: list[Tensor], rounds: int) -> dict[str, dict[str, list[float] | str]]:
    """Milliseconds of the forward and the backward pass of each call, round-robin; or why there are none."""
    flush = torch.empty(256 * 2**20, dtype=torch.int8, device="cuda")
    times: dict[str, dict[str, list[float] | str]] = {name: {"forward": [], "backward": []} for name in calls}
    for turn, (name, call) in itertools.product(range(-2, rounds), calls.items()):  # two rounds of warm-up
        if isinstance(times[name]["forward"], str):
            continue
        try:
            took = one_step(call, leaves, flush)
        except (torch.OutOfMemoryError, RuntimeError) as error:  # a peer that is missing on this machine
            times[name] = dict.fromkeys(("forward", "backward"), str(error).splitlines()[0][:60])
            continue
        for part, milliseconds in zip(("forward", "backward"), took, strict=True):
            row = times[name][part]
            if turn >= 0 and isinstance(row, list):
                row.append(milliseconds)
    return times


def mark() -> torch.cuda.Event:
    """A point in the GPU's time."""
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # it has no types
    return event


def one_step(call: Call, leaves: list[Tensor], flush: Tensor) -> tuple[float, float]:
    """Milliseconds of one forward and one backward pass."""
    marks = [mark() for _ in range(4)]
    flush.zero_()
    marks[0].record()
    out = call()
    marks[1].record()
    gradient = torch.randn_like(out)
    flush.zero_()
    marks[2].record()
    torch.autograd.grad(out, leaves, gradient, allow_unused=True)
    marks[3].record()
    torch.cuda.synchronize()
    return marks[0].elapsed_time(marks[1]), marks[2].elapsed_time(marks[3])


def rates(rounds: int) -> tuple[float, float]:
    """This machine's bfloat16 matmul rate in FLOP/s and its copy rate in bytes/s."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    calls: dict[str, Call] = {"matmul": lambda: a @ b, "copy": lambda: a.clone()}
    flush = torch.empty(256 * 2**20, dtype=torch.int8, device="cuda")
    seconds = {}
    for name, call in calls.items():
        took = []
        for _ in range(rounds + 2):
            marks = [mark() for _ in range(2)]
            flush.zero_()
            marks[0].record()
            call()
            marks[1].record()
            torch.cuda.synchronize()
            took.append(marks[0].elapsed_time(marks[1]) / 1000)
        seconds[name] = statistics.median(took[2:])
    return 2 * 8192**3 / seconds["matmul"], 2 * a.numel() * a.element_size() / seconds["copy"]


def main() -> None:
    """Print one Markdown table; every peer that is missing is a row that says so."""
    parser = argparse.ArgumentParser(prog="python -m trans4init.bench.attention", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="measurements of each implementation")
    parser.add_argument("--lengths", type=int, nargs="+", default=[2048, 8192], help="sequence lengths")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("This benchmark needs a GPU, and this machine has none.")
    matmul, copy = rates(arguments.rounds)
    print(f"{torch.cuda.get_device_name()}: matmul {matmul / 1e12:.0f} TFLOP/s, copy {copy / 1e12:.2f} TB/s\n")
    print("| setting | implementation | pass | median ms | quartiles | of matmul rate |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    for length, dim, causal in itertools.product(arguments.lengths, (64, 128), (False, True)):
        setting = Setting(dim, length, causal)
        calls, leaves = peers(setting)
        for name, parts in measure(calls, leaves, arguments.rounds).items():
            for part, took in parts.items():
                if isinstance(took, str):
                    print(f"| {setting} | {name} | {part} | missing: {took} | | |")
                    continue
                low, middle, high = statistics.quantiles(took, n=4)
                flop = setting.flop * (1.0 if part == "forward" else 2.5)
                fraction = flop / (middle / 1000) / matmul
                print(f"| {setting} | {name} | {part} | {middle:.3f} | {low:.3f} to {high:.3f} | {fraction:.2f} |")


if __name__ == "__main__":
    main()
