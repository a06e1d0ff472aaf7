"""`python -m trans4init.bench.positional_mlp [--out FOLDER]`: the batched positional MLP beside its peers.

Everything runs interleaved in one process on random parameters. On a GPU the L2 cache is flushed before each
measurement, and shares are of the copy rate measured in the same run; on a CPU, of its matmul rate.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trans4init.bench.side_by_side import (
    COPY_RATE,
    MATMUL_RATE,
    Call,
    Case,
    Parts,
    Timing,
    in_turns,
    machine_rates,
    print_table,
    save,
)
from trans4init.kernels.positional_mlp import FEATURES, positional_mlp
from trans4init.kernels.positional_mlp.launch import packed_size

__all__ = ["Nets", "Size", "main"]

Implementations = dict[str, Callable[[], Parts]]
Work = Iterator[tuple[str, str, Implementations, dict[str, float]]]
"""Titles, the implementation that others are measured against, the implementations, and the least ms of each part."""


@dataclass(frozen=True)
class Size:
    """How many nets, at how many positions, of which widths."""

    nets: int
    positions: int
    features: str
    frequencies: int
    hidden: tuple[int, ...]
    outputs: int

    @property
    def widths(self) -> tuple[int, ...]:
        """Inputs, hidden, outputs."""
        return (self.frequencies * (2 if self.features == "fourier" else 1), *self.hidden, self.outputs)

    @property
    def flop(self) -> float:
        """Of the products of the forward pass."""
        return 2.0 * self.nets * self.positions * sum(i * o for i, o in pairwise(self.widths))

    @property
    def bytes(self) -> float:
        """At least moved by the forward pass in float32: each parameter read once, each output written once."""
        parameters = packed_size((self.frequencies, *self.hidden, self.outputs), self.features)
        return 4.0 * self.nets * (parameters + self.positions * self.outputs)

    def __str__(self) -> str:
        """As a title names it."""
        hidden = " + ".join(map(str, self.hidden))
        return (
            f"{self.nets} nets, {self.positions} positions, {self.features}, {self.frequencies} frequencies, "
            f"hidden {hidden}, {self.outputs} outputs"
        )


class _Features(nn.Module):
    def __init__(self, features: str, frequencies: Tensor) -> None:
        super().__init__()
        self.features, self.frequencies = features, frequencies

    def forward(self, positions: Tensor) -> Tensor:
        return FEATURES[self.features](positions, self.frequencies)


class Nets:
    """Nets with random parameters, evaluated in several ways."""

    def __init__(self, size: Size, device: str) -> None:
        generator = torch.Generator().manual_seed(0)
        layers = list(pairwise(size.widths))
        self.size = size
        self.positions = torch.arange(size.positions, dtype=torch.float32, device=device)
        self.frequencies = torch.rand(size.frequencies, generator=generator).to(device)
        self.weights = [(torch.randn(size.nets, i, o, generator=generator) / i**0.5).to(device) for i, o in layers]
        self.biases = [torch.randn(size.nets, o, generator=generator).to(device) for _, o in layers]

    def call(self, impl: str, **options: Tensor) -> Call:
        """Our function with an implementation."""
        given: dict[str, Any] = {"features": self.size.features, "impl": impl} | options
        return lambda: positional_mlp(self.positions, self.frequencies, self.weights, self.biases, **given)

    def loop(self) -> Call:
        """One `nn.Sequential` a net, one after the other."""
        modules = [self._sequential(net) for net in range(self.size.nets)]
        return lambda: torch.stack([module(self.positions) for module in modules])

    def vmap(self) -> Call:
        """`torch.func.vmap` of one net."""

        def one(weights: list[Tensor], biases: list[Tensor]) -> Tensor:
            weights, biases = ([tensor[None] for tensor in tensors] for tensors in (weights, biases))
            arguments = (self.positions, self.frequencies, weights, biases)
            return positional_mlp(*arguments, features=self.size.features, impl="reference")[0]

        return lambda: torch.func.vmap(one)(self.weights, self.biases)

    def learned(self) -> list[Tensor]:
        """Weights and biases, which want a gradient from here on."""
        return [tensor.requires_grad_() for tensor in (*self.weights, *self.biases)]

    def _sequential(self, net: int) -> nn.Sequential:
        layers: list[nn.Module] = [_Features(self.size.features, self.frequencies)]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            _, inputs, outputs = weight.shape
            linear = nn.Linear(inputs, outputs, device=weight.device)
            linear.weight.data, linear.bias.data = weight[net].T.contiguous(), bias[net].clone()
            layers += [linear, nn.GELU()]
        return nn.Sequential(*layers[:-1])


def forward(call: Call) -> Parts:
    """The call without gradients."""
    return {"forward": torch.no_grad()(call)}


def step(call: Callable[[], Any], leaves: list[Tensor]) -> Parts:
    """The call and its gradients, from an upstream that is not constant."""

    def run() -> None:
        out = call()
        torch.autograd.grad(out, leaves, torch.rand_like(out))

    return {"forward + backward": run}


def captured(nets: Nets) -> Parts:
    """The chain of products as a CUDA graph."""
    return forward(graphed(nets.call("bmm")))


def graphed(call: Call) -> Call:
    """The call as a CUDA graph."""
    with torch.no_grad():
        for _ in range(3):
            call()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
    return graph.replay


def training_step(content: str, batch: int, length: int, width: int, device: str) -> Parts:
    """A small Transformer layer's step on tokens to which the encoding is added, as a model's position slot adds it.

    content: "folded" takes a frozen net's table of rows, "analytic" the closed form as the slot holds it, a table too,
    "evaluated" the closed form made anew in each step.
    """
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(width, max(1, width // 64), 4 * width, 0.0, batch_first=True).to(device)
    state = torch.randn(batch, length, width, device=device)
    positions = torch.arange(length, device=device)
    rates = torch.exp(torch.arange(0, width, 2, device=device) * (-9.2103 / width))

    def analytic() -> Tensor:
        angles = positions[:, None] * rates
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)

    if content == "folded":
        nets = Nets(Size(1, length, "fourier", 32, (256,), width), device)
        with torch.no_grad():
            table = positional_mlp(nets.positions, nets.frequencies, nets.weights, nets.biases)[0]
    else:
        table = analytic()

    def run() -> Tensor:
        rows = analytic() if content == "evaluated" else table[positions]
        out: Tensor = layer(state + rows)
        return out

    return step(run, list(layer.parameters()))


CPU_SIZES = (
    Size(64, 512, "log", 1, (64,), 1),
    Size(64, 512, "fourier", 16, (64,), 16),
    Size(64, 512, "fourier", 32, (64, 64), 64),
)


def cpu_work(rates: dict[Any, float]) -> Work:
    """64 nets at 512 positions, width 64, without and with gradients; and a training step."""
    for size in CPU_SIZES:
        nets = Nets(size, "cpu")
        calls = {
            "auto": nets.call("auto"),
            "loop over nn.Sequential": nets.loop(),
            "bmm": nets.call("bmm"),
            "vmap": nets.vmap(),
            "compile": nets.call("compile"),
        }
        limits = {"forward": 1e3 * size.flop / rates[MATMUL_RATE]}
        yield f"{size}", "auto", {name: partial(forward, call) for name, call in calls.items()}, limits
    yield training_steps(8, 128, 64, "cpu")


GPU_SIZE = Size(768, 16384, "fourier", 16, (32,), 16)
GPU_BATCH, GPU_LENGTH, GPU_WIDTH = 32, 4096, 512


def gpu_work(rates: dict[Any, float], device: str = "cuda") -> Work:
    """Many nets in both float32 precisions; an encoder added to a batch of embeddings; a training step."""
    size = GPU_SIZE
    for precision in ("highest", "high"):
        torch.set_float32_matmul_precision(precision)
        nets = Nets(size, device)
        calls = {name: nets.call(name) for name in ("triton", "bmm", "compile")} | {"vmap": nets.vmap()}
        forwards: Implementations = {name: partial(forward, call) for name, call in calls.items()}
        forwards["bmm as a CUDA graph"] = partial(captured, nets)
        yield f"{size}, float32 {precision}", "triton", forwards, {"forward": 1e3 * size.bytes / rates[COPY_RATE]}
        leaves = Nets(size, device)
        learned = leaves.learned()
        steps: Implementations = {
            name: partial(step, leaves.call(name), learned) for name in ("triton", "bmm", "compile")
        }
        yield f"{size}, float32 {precision}, with gradients", "triton", steps, {}
    torch.set_float32_matmul_precision("highest")
    shape = (GPU_BATCH, GPU_LENGTH, GPU_WIDTH)
    encoder = Nets(Size(1, GPU_LENGTH, "fourier", 32, (256,), GPU_WIDTH), device)
    state = torch.randn(shape, device=device)
    bare: Callable[[], Any] = encoder.call("bmm")
    added = {
        "triton with add_to": lambda: forward(encoder.call("triton", add_to=state)),
        "x + mlp(positions)": lambda: forward(lambda: state + bare()),
    }
    least = 1e3 * 2 * state.numel() * state.element_size() / rates[COPY_RATE]
    yield f"{encoder.size}, added to {list(shape)}", "triton with add_to", added, {"forward": least}
    sums = {"sum over the batch": lambda: forward(lambda: state.sum(0))}
    title = "the gradient of that encoding: its upstream summed over the batch"
    yield title, "sum over the batch", sums, {"forward": least / 2}
    yield training_steps(*shape, device)


def training_steps(batch: int, length: int, width: int, device: str) -> Any:
    """A training step with the closed form, with a frozen net that was folded, and with the closed form made anew."""
    contents = ("analytic", "folded", "evaluated")
    steps = {name: partial(training_step, name, batch, length, width, device) for name in contents}
    return f"a training step of one layer, {batch} x {length} tokens of width {width}", "analytic", steps, {}


def main() -> None:
    """Print Markdown tables for the device that is there, and keep the measurements where --out says."""
    parser = argparse.ArgumentParser(prog="python -m trans4init.bench.positional_mlp", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="measurements of each implementation")
    parser.add_argument("--out", type=Path, help="folder for the measurements, as Parquet")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        print("No GPU here: its tables are missing; on one, this same command measures them.")
    rates = machine_rates(device)
    print(*(f"{metric.name} {rate:.3g} {metric.unit}" for metric, rate in rates.items()), sep=", ")
    print(f"{torch.get_num_threads()} threads")
    found: list[tuple[Case, list[Timing]]] = []
    for title, baseline, implementations, limits in (gpu_work if device == "cuda" else cpu_work)(rates):
        timings = in_turns(implementations, arguments.rounds, device)
        found.append((Case("positional-mlp", title), timings))
        rate = "of the copy rate" if device == "cuda" else "of the matmul rate"
        print_table(title, timings, baseline, rate, limits)
    if arguments.out is not None:
        print(*save(found, rates, arguments.out), sep="\n")


if __name__ == "__main__":
    main()
