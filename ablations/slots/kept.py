"""Keep what training made of a model's slots: their state, and their values at points that a report can draw."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trans4init.ablations.slots.guard import ArmRecord
from trans4init.ablations.slots.slot import Slot, slots_named
from trans4init.reports.records.kept_slots import CLOSED, HEADER, INPUTS, STATE, VALUES
from trans4init.reports.sealed_tensors import metadata_of, sealed

__all__ = ["kept_slots"]

_POSITIONS, _REALS = 64, 129
"""The most integers, and the number of reals, at which values are kept: each costs a row of values per slot and run."""


@torch.no_grad()
def kept_slots(model: nn.Module, record: ArmRecord, facts: Mapping[str, object]) -> bytes | None:
    """Return the content of a safetensors file with the state and the values of the slots that the arm is in.

    `state/PATH/NAME` holds parameters and persistent buffers, by the slot's path in the model. For a function of
    numbers `inputs` [N] are integers spread evenly over the slot's domain, or reals over the function's; `closed` [N,
    outputs] the closed form there, where the function has one, and `values/PATH` [N, outputs] each slot's values. All
    floating-point numbers are float32. The header, JSON in the file's metadata, has the `facts`, and the function's and
    the slot's. None where no slot has a state: then nothing in it is trained or fitted.
    """
    from safetensors.torch import save  # here, since models are trained without files too

    slots = slots_named(model, record.slot)
    tensors = {
        f"{STATE}/{path}/{name}": value
        for path, place in slots.items()
        for name, value in place.content.state_dict().items()
    }
    if not tensors:
        return None
    first = next(iter(slots.values()))
    tensors |= _drawn(slots)
    header = {
        **facts,
        "slot": record.slot,
        "shape": first.shape,
        "integer": first.domain.integer,
        "log_inputs": first.domain.log,
        "log_values": first.function.log_values,
    }
    plain = {name: _plain(value) for name, value in tensors.items()}
    return sealed(save(plain, metadata_of(HEADER, header)))


def _drawn(slots: Mapping[str, Slot]) -> dict[str, Tensor]:
    """Return inputs and values of slots of one function; empty for a function of vectors or rows."""
    first = next(iter(slots.values()))
    function, domain = first.function, first.domain
    if function.takes != "numbers":
        return {}
    points = function.points(domain, _REALS, **first.shape)
    if domain.integer:
        points = points[:: -(-len(points) // _POSITIONS)]
    drawn = {INPUTS: points}
    if function.closed_form:
        drawn[CLOSED] = function.as_rows(function.analytic(points, **first.shape))
    for path, place in slots.items():
        like = place.content.dtype_like
        inputs = points.to(
            like.device, torch.int64 if domain.integer else torch.promote_types(like.dtype, torch.float32)
        )
        drawn[f"{VALUES}/{path}"] = function.as_rows(place.content(inputs))
    return drawn


def _plain(value: Tensor) -> Tensor:
    """Return a tensor of its own on the CPU, floats as float32: safetensors takes no memory that is shared."""
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).clone().contiguous()
