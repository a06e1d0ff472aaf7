"""Make a JSON schema of settings: each key's type, range, default and meaning. Needs pydantic; imports no torch."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from trans4init.ablations.settings.meanings import meanings

__all__ = ["DIALECT", "key_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""What a schema says of its own language, in `$schema`."""


def key_schema(settings: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a file or section that holds these settings.

    Each key has its docstring as description. Keys that no file sets (`Field(exclude=True)`) are left out; TOML has no
    null, so that a key which may be None is one that may be left out.
    """
    return settings.model_json_schema(schema_generator=_Keys)


def _for_a_file(meaning: str) -> str:
    """Say `left out` for Python's None, which no file can give."""
    return meaning.replace("; None: ", "; left out: ").replace("None: ", "Left out: ")


class _Keys(GenerateJsonSchema):
    """Adds meanings, and leaves out titles, nulls and the defaults of whole sections."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        settings: type[BaseModel] = schema["cls"]
        texts, properties = meanings(settings), made.get("properties", {})
        for name in list(properties):
            if settings.model_fields[name].exclude:
                del properties[name]
            elif name in texts:
                properties[name]["description"] = _for_a_file(texts[name])
        made.pop("title", None)
        return made

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        if made.get("default", ...) is None or isinstance(made.get("default"), dict):
            del made["default"]
        return made
