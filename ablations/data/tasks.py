"""The configuration of any task, told apart by its `name`. Imports no torch, but for a task in a user's file."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, SerializeAsAny, Tag

from trans4init.ablations.data.classification import ClassificationConfig
from trans4init.ablations.data.config import TaskConfig, config_in_file
from trans4init.ablations.data.images import ImagesConfig
from trans4init.ablations.data.modular import ModularConfig
from trans4init.ablations.data.scan import ScanConfig
from trans4init.ablations.data.sequences import AdditionConfig, CopyConfig, ReverseConfig, SortConfig
from trans4init.ablations.data.text import TextConfig
from trans4init.ablations.data.translation import TranslationConfig

__all__ = ["AnyTaskConfig"]


_IN_FILE = "FILE.py:NAME"


def _tag(section: Any) -> str:
    """Return the name in a task section: `text` if it has no name, `FILE.py:NAME` for one in a user's file."""
    name = str(section.get("name", "text") if isinstance(section, dict) else getattr(section, "name", "text"))
    return _IN_FILE if ":" in name else name


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
    | Annotated[ImagesConfig, Tag("images")]
    | Annotated[SerializeAsAny[TaskConfig], BeforeValidator(config_in_file), Tag(_IN_FILE)],
    Discriminator(_tag),
]
