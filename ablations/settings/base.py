"""Frozen settings that a file or a person fills in: checked by pydantic where it is installed.

A machine that only measures can do without; there settings are what code says.
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
