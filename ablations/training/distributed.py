"""A team of processes that train one model together, started by torchrun; one process is a team of one."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trans4init.ablations.errors import InputError

__all__ = ["Team", "joined_team"]


@dataclass(frozen=True)
class Team:
    """Names a team of `size` processes, of which this is number `rank`. Each works on its share of every batch."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that measures, prints and writes."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model with its gradients averaged over the team."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, broadcast_buffers=False)

    def local(self, model: nn.Module) -> AbstractContextManager[None]:
        """Don't average gradients in backward passes within: more pieces of the batch follow."""
        if isinstance(model, DistributedDataParallel):
            context: AbstractContextManager[None] = model.no_sync()
            return context
        return nullcontext()

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a value over the team."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def told(self, thing: Any) -> Any:
        """Return the leader's thing in every process; what the others pass is ignored."""
        if self.size == 1:
            return thing
        box = [thing]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gathered(self, thing: Any) -> list[Any]:
        """Return the things of all processes, by rank."""
        if self.size == 1:
            return [thing]
        things: list[Any] = [None] * self.size
        dist.all_gather_object(things, thing)
        return things


@contextmanager
def joined_team() -> Iterator[Team]:
    """Join the team that torchrun started this process in, by NCCL between GPUs or gloo between CPUs.

    Raises InputError where there is no such team.
    """
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():  # a scheduler may set one of them alone
        yield Team()
        return
    try:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no team can be joined ({str(error).splitlines()[0]}): start it by torchrun, or, to train in one process, "
            f"leave RANK, WORLD_SIZE and MASTER_ADDR out of the environment."
        ) from None
    try:
        yield Team(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
