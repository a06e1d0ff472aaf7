"""The configuration of any task, told apart by its `name`. Imports no torch."""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from trans4init.ablations.data.classification import ClassificationConfig
from trans4init.ablations.data.images import ImagesConfig
from trans4init.ablations.data.modular import ModularConfig
from trans4init.ablations.data.scan import ScanConfig
from trans4init.ablations.data.sequences import AdditionConfig, CopyConfig, ReverseConfig, SortConfig
from trans4init.ablations.data.text import TextConfig
from trans4init.ablations.data.translation import TranslationConfig

__all__ = ["AnyTaskConfig"]


def _name(given: Any) -> str:
    """The task that a section names; `text` where it names none."""
    return str(given.get("name", "text") if isinstance(given, dict) else getattr(given, "name", "text"))


AnyTaskConfig = Annotated[
    Annotated[TextConfig, Tag("text")]
    | Annotated[TranslationConfig, Tag("translation")]
    | Annotated[CopyConfig, Tag("copy")]
    | Annotated[ReverseConfig, Tag("reverse")]
    | Annotated[SortConfig, Tag("sort")]
    | Annotated[AdditionConfig, Tag("addition")]
    | Annotated[ModularConfig, Tag("modular-addition")]
    | Annotated[ScanConfig, Tag("scan")]
    | Annotated[ClassificationConfig, Tag("classification")]
    | Annotated[ImagesConfig, Tag("images")],
    Discriminator(_name),
]
