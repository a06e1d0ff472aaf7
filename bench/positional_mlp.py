"""How fast the batched positional MLP is against its peers: `python -m trans4init.bench.positional_mlp [--compiled]`.

Peers take turns in one run, the median of all turns counts. On a GPU the L2 cache is flushed before each turn and the
copy rate is measured in the same run. `--compiled` prints what ahead-of-time compilation says instead.
"""

import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from trans4init.kernels.positional_mlp import FEATURES, positional_mlp
from trans4init.kernels.positional_mlp.aot import compile_table

__all__ = ["main"]

Peer = Callable[[], Tensor]
TURNS = 15


class _Features(nn.Module):
    def __init__(self, features: str, frequencies: Tensor) -> None:
        super().__init__()
        self.features, self.frequencies = features, frequencies

    def forward(self, positions: Tensor) -> Tensor:
        return FEATURES[self.features](positions, self.frequencies)


class _Nets:
    """G nets with random parameters, evaluated in several ways."""

    def __init__(
        self, nets: int, positions: int, hidden: list[int], outputs: int, features: str, count: int, device: str
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        widths = [count * (2 if features == "fourier" else 1), *hidden, outputs]
        self.features = features
        self.positions = torch.arange(positions, dtype=torch.float32, device=device)
        self.frequencies = torch.rand(count, generator=generator).to(device)
        self.weights = [(torch.randn(nets, i, o, generator=generator) / i**0.5).to(device) for i, o in pairwise(widths)]
        self.biases = [torch.randn(nets, o, generator=generator).to(device) for o in widths[1:]]

    def call(self, impl: str, **options: Tensor) -> Peer:
        arguments = (self.positions, self.frequencies, self.weights, self.biases)
        return lambda: positional_mlp(*arguments, features=self.features, impl=impl, **options)  # type: ignore[arg-type]

    def loop(self) -> Peer:
        """One `nn.Sequential` a net, one after the other."""
        modules = [self._sequential(net) for net in range(self.weights[0].shape[0])]
        return lambda: torch.stack([module(self.positions) for module in modules])

    def vmap(self) -> Peer:
        def one(weights: list[Tensor], biases: list[Tensor]) -> Tensor:
            weights, biases = ([tensor[None] for tensor in tensors] for tensors in (weights, biases))
            arguments = (self.positions, self.frequencies, weights, biases)
            return positional_mlp(*arguments, features=self.features, impl="reference")[0]

        return lambda: torch.func.vmap(one)(self.weights, self.biases)

    def _sequential(self, net: int) -> nn.Sequential:
        layers: list[nn.Module] = [_Features(self.features, self.frequencies)]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            _, inputs, outputs = weight.shape
            linear = nn.Linear(inputs, outputs, device=weight.device)
            linear.weight.data, linear.bias.data = weight[net].T.contiguous(), bias[net]
            layers += [linear, nn.GELU()]
        return nn.Sequential(*layers[:-1])


def with_backward(peer: Peer, leaves: list[Tensor]) -> Peer:
    """The peer and the gradients to `leaves`, from an upstream that is not constant."""

    def run() -> Tensor:
        out = peer()
        torch.autograd.grad(out, leaves, grad_outputs=torch.ones_like(out))
        return out

    return run


def graphed(peer: Peer) -> Peer:
    """The peer as a CUDA graph."""
    for _ in range(3):
        peer()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = peer()

    def run() -> Tensor:
        graph.replay()
        return out

    return run


def milliseconds(peers: dict[str, Peer], device: str) -> dict[str, tuple[float, float, float]]:
    """Median, lower and upper quartile of each peer; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in peers}
    flush = torch.empty(2**28 if device == "cuda" else 0, dtype=torch.uint8, device=device)
    for turn in range(-3, TURNS):
        for name, peer in peers.items():
            flush.zero_()
            taken = _gpu_time(peer) if device == "cuda" else _cpu_time(peer)
            if turn >= 0:
                times[name].append(taken)
    found = {}
    for name, samples in times.items():
        lower, median, upper = statistics.quantiles(samples, n=4)
        found[name] = (median, lower, upper)
    return found


def _cpu_time(peer: Peer) -> float:
    # One thread's own time doesn't count what else the machine does; of several, only the clock on the wall is speed.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    peer()
    return 1e3 * (clock() - start)


def _gpu_time(peer: Peer) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    peer()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def print_table(title: str, times: dict[str, tuple[float, float, float]], first: str, output_bytes: int = 0) -> None:
    """Markdown: each peer's time, and how many times longer it takes than `first`."""
    print(f"\n{title}\n\n| | ms, median | quartiles | times {first} |\n| --- | --- | --- | --- |")
    copy = times.get("copy of the output")
    for name, (median, low, high) in times.items():
        print(f"| {name} | {median:.3g} | {low:.3g} to {high:.3g} | {median / times[first][0]:.2f} |")
    if copy is not None and output_bytes:
        print(
            f"\n{first} writes at {copy[0] / 2 / times[first][0]:.0%} of the rate of that copy (one read, one write)."
        )


def cpu_tables() -> None:
    """64 nets at 512 positions, width 64."""
    cases = (("log", 1, [64], 1), ("fourier", 16, [64], 16), ("fourier", 32, [64, 64], 64))
    for features, count, hidden, outputs in cases:
        nets = _Nets(64, 512, hidden, outputs, features, count, "cpu")
        peers = {
            "auto": nets.call("auto"),
            "loop over nn.Sequential": nets.loop(),
            "bmm": nets.call("bmm"),
            "vmap": nets.vmap(),
            "compile": nets.call("compile"),
        }
        title = (
            f"{features}, {count} frequencies, hidden {hidden}, {outputs} outputs, {torch.get_num_threads()} threads"
        )
        with torch.no_grad():
            print_table(title, milliseconds(peers, "cpu"), "auto")


def gpu_tables() -> None:
    """The table of the issue: 768 nets at 16k positions, and an encoder of 4k positions added to a batch of 32."""
    name = torch.cuda.get_device_name()
    for precision in ("highest", "high"):
        torch.set_float32_matmul_precision(precision)
        nets = _Nets(768, 16384, [32], 16, "fourier", 16, "cuda")
        peers = {
            "triton": nets.call("triton"),
            "bmm": nets.call("bmm"),
            "vmap": nets.vmap(),
            "compile": nets.call("compile"),
            "bmm as a CUDA graph": graphed(nets.call("bmm")),
        }
        with torch.no_grad():
            out = nets.call("triton")()
            spare = torch.empty_like(out)
            copy = {"copy of the output": lambda spare=spare, out=out: spare.copy_(out)}
            times = milliseconds(peers | copy, "cuda")
        print_table(f"{name}, forward, float32 {precision}", times, "triton", out.numel() * out.element_size())
        del out, spare
        leaves = [tensor.requires_grad_() for tensor in (*nets.weights, *nets.biases)]
        both = {key: with_backward(peers[key], leaves) for key in ("triton", "bmm", "compile")}
        print_table(f"{name}, forward + backward, float32 {precision}", milliseconds(both, "cuda"), "triton")
    encoder = _Nets(1, 4096, [256], 512, "fourier", 32, "cuda")
    state = torch.randn(32, 4096, 512, device="cuda")
    bare = encoder.call("bmm")
    peers = {
        "triton with add_to": encoder.call("triton", add_to=state),
        "x + mlp(positions)": lambda: state + bare(),
        "copy of the output": lambda: state.clone(),
    }
    with torch.no_grad():
        print_table(f"{name}, encoder + add", milliseconds(peers, "cuda"), "triton with add_to")
    upstream = torch.randn_like(state)
    reduction = {
        "sum of the upstream over B": lambda: upstream.sum(0),
        "copy of the upstream": lambda: upstream.clone(),
    }
    print_table(f"{name}, add_to's backward", milliseconds(reduction, "cuda"), "sum of the upstream over B")


def main() -> None:
    """Print the tables for the device that is there."""
    if "--compiled" in sys.argv[1:]:
        print(compile_table())
    elif torch.cuda.is_available():
        gpu_tables()
    else:
        print("No GPU here: its tables are missing; on one, this same command measures them.")
        cpu_tables()


if __name__ == "__main__":
    main()
