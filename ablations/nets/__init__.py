"""The nets that can stand in for a function. One class per net, in a file per family."""

from typing import Any

from trans4init.ablations.errors import InputError
from trans4init.ablations.functions import Domain
from trans4init.ablations.nets.base import NETS, Net, NetSize
from trans4init.ablations.registry import import_all
from trans4init.ablations.seeding import keyed_generator
from trans4init.ablations.settings.base import ValidationError
from trans4init.ablations.settings.error_sentence import sentence

__all__ = ["Net", "NetSize", "build_net", "list_nets", "net_class", "net_from_card"]

import_all(__name__, __path__)


def build_net(name: str, domain: Domain, outputs: int, **size: Any) -> Net:
    """A net called `name` from scalars in `domain` to `outputs` values, with the random start of seed 0.

    Raises InputError for a size that the net can't have.
    """
    kind = NETS.get(name)
    try:
        net = kind(domain, outputs, kind.Size(**size))
    except ValidationError as error:
        raise InputError(sentence(error, kind.Size, f"net {name!r}")) from None
    net.initialise(keyed_generator(0, name))
    return net


def net_from_card(card: dict[str, Any]) -> Net:
    """The net that `Net.card` described."""
    return build_net(card["net"], Domain(*card["domain"]), card["outputs"], **card["size"])


def net_class(name: str) -> type[Net]:
    """The class of the net called `name`; raises InputError with the nearest name."""
    return NETS.get(name)


def list_nets() -> list[str]:
    """The names of all nets."""
    return NETS.names()
