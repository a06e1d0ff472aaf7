"""A fitted net: it can be called, folded to a table or a polyline, saved and loaded."""

from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from trans4init.ablations.code_policy import named_by_data
from trans4init.ablations.errors import InputError
from trans4init.ablations.fit.fidelity import Fidelity, RegionErrors
from trans4init.ablations.functions import Function, get_function
from trans4init.ablations.net_files import read_checkpoint, write_checkpoint
from trans4init.ablations.nets import Net, net_from_description
from trans4init.ablations.slots.contents import Content, NetContent, folded

__all__ = ["Fitted", "load_fitted"]


@dataclass(frozen=True, eq=False)
class Fitted:
    """Holds a net that was fitted to a function."""

    function: Function
    shape: dict[str, int]
    net: Net
    seed: int
    fidelity: Fidelity

    def __call__(self, inputs: Tensor) -> Tensor:
        """Compute the net's values for inputs [...], in float32 or float64 as they are; integers become float32."""
        exact = inputs if inputs.is_floating_point() else inputs.float()
        return NetContent(self.function, self.shape, self.net).value(exact)

    def fold(self) -> Content:
        """Fold the net to a table over a finite domain or to the polyline that it is; raises InputError for others."""
        content = folded(NetContent(self.function, self.shape, self.net), self.net.domain)
        if content is None:
            raise InputError(
                f"{self.net.name} on the reals {self.net.domain} doesn't fold: it is neither a table nor a polyline."
            )
        return content

    def save(self, folder: Path | str) -> Path:
        """Write `net.safetensors` and `card.json` into `folder`."""
        from safetensors.torch import save  # only saving and loading need it

        description = {
            "function": self.function.located,
            "shape": self.shape,
            "seed": self.seed,
            **self.net.description(),
            "fidelity": asdict(self.fidelity),
        }
        return write_checkpoint(Path(folder), description, save(self.net.state_dict()))


def load_fitted(folder: Path | str, *, allow_code: bool = False) -> Fitted:
    """Load the net that `Fitted.save` wrote.

    allow_code: whether to run the file of code that the folder names, for a net or a function of `my/file.py:name`;
    without it, that must have been run already. Raises InputError where it wasn't, and where the folder holds no net,
    or a damaged one.
    """
    with named_by_data(folder, allowed=allow_code):
        return _loaded(folder)


def _loaded(folder: Path | str) -> Fitted:
    from safetensors import SafetensorError
    from safetensors.torch import load

    description, weights = read_checkpoint(Path(folder))
    try:
        net = net_from_description(description)
        net.load_state_dict(load(weights))
        fields = dict(description["fidelity"])
        fields["regions"] = tuple(RegionErrors(**errors) for errors in fields["regions"])
        fidelity = Fidelity(**fields)
        finite = all(bool(value.isfinite().all()) for value in net.state_dict().values())
    except (ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder} holds no fitted net: {error}") from error
    if not finite:
        raise InputError(f"{folder} holds no fitted net: some of its weights are NaN or infinite.")
    return Fitted(get_function(description["function"]), description["shape"], net, description["seed"], fidelity)
