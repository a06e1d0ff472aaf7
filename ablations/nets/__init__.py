"""The nets that can stand in for a function: a class for each, in a file for each family."""

from collections.abc import Mapping
from typing import Any

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import Domain
from trans4init.ablations.nets.base import NETS, Net, NetSize
from trans4init.ablations.registry import import_all
from trans4init.ablations.seeding import keyed_generator
from trans4init.ablations.settings.base import ValidationError
from trans4init.ablations.settings.error_sentence import sentence

__all__ = ["Net", "NetSize", "build_net", "list_nets", "net_class", "net_from_description"]

import_all(__name__, __path__)


def build_net(name: str, domain: Domain, outputs: int, **size: Any) -> Net:
    """Build the net called `name`, or `my/file.py:name`, from inputs in `domain` to `outputs` values.

    What `size` leaves out is as the net's class has it by default, for positions or for one value of a real. The
    parameters are drawn from seed 0. Raises InputError for an unknown net and for a size that the net can't have.
    """
    kind = NETS.get(name)
    try:
        default = {} if domain.integer or outputs > 1 else kind.size_on_reals
        net = kind(domain, outputs, kind.Size(**{**default, **size}))
    except ValidationError as error:
        raise InputError(sentence(error, kind.Size, f"net {name!r}")) from None
    except RuntimeError as error:
        if "allocate" not in str(error):
            raise
        raise InputError(f"net {name!r} with {size} has more values than this machine's memory holds.") from None
    net.located = name
    net.initialise(keyed_generator(0, name))
    return net


def net_from_description(description: Mapping[str, Any]) -> Net:
    """Build the net that `Net.description` described."""
    return build_net(description["net"], Domain(*description["domain"]), description["outputs"], **description["size"])


def net_class(name: str) -> type[Net]:
    """Return the class of the net called `name`; raises InputError with the nearest name."""
    return NETS.get(name)


def list_nets() -> list[str]:
    """Return the names of all nets."""
    return NETS.names()
