"""What settings are made of: pydantic where it is installed, else a stand-in that checks less.

A machine that only measures speed has no pydantic; there, settings come from code alone.
"""

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING or importlib.util.find_spec("pydantic"):
    from pydantic import (
        BaseModel,
        ConfigDict,
        Field,
        SerializerFunctionWrapHandler,
        ValidationError,
        field_validator,
        model_serializer,
        model_validator,
    )
else:
    from trans4init.ablations.settings.unchecked import (
        BaseModel,
        ConfigDict,
        Field,
        SerializerFunctionWrapHandler,
        ValidationError,
        field_validator,
        model_serializer,
        model_validator,
    )

__all__ = [
    "BaseModel",
    "ConfigDict",
    "Field",
    "SerializerFunctionWrapHandler",
    "ValidationError",
    "field_validator",
    "model_serializer",
    "model_validator",
]
