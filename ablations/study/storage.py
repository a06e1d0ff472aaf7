"""The section of a study file that says in which database Optuna's view of the trials is kept. Imports no SQLAlchemy.

The address may hold a password. It goes into no result: `StudySpec.public` and `StudySpec.conditions` leave the section
out, and what shows an address masks its password.
"""

import os
import re
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import quote

from trans4init.ablations.errors import InputError, without_passwords
from trans4init.ablations.settings.base import BaseModel, ConfigDict, Field, field_validator

__all__ = ["DIALECTS", "StorageSection"]

DIALECTS = ("postgresql", "mysql", "mariadb", "sqlite")
"""The databases that Optuna keeps tables in. Others, such as its journal files, don't survive a torn last line."""
_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9]*)(?:\+[A-Za-z0-9_]+)?://")


class StorageSection(BaseModel):
    """Names the database that holds the study's trials for Optuna's tools, if it isn't `optuna.db` in its folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, Field(repr=False, min_length=1)]
    """Its address as SQLAlchemy has it, postgresql://USER@HOST/DATABASE; ${NAME} stands for an environment variable."""

    @field_validator("url")
    @classmethod
    def _is_of_a_database(cls, url: str) -> str:
        if not _VARIABLE.match(url):  # else the whole address is in a variable, which is read when the study is run
            _checked(url)
        return url

    def address(self, variables: Mapping[str, str] = os.environ) -> str:
        """Return the address with the values of the environment variables that it names.

        A value within an address is percent-encoded; one that is the whole address is taken as it is. Raises InputError
        for a variable that isn't set, and for a value that is no address.
        """

        def value(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name not in variables:
                raise InputError(f"[storage] url names the environment variable {name}, which isn't set.")
            return variables[name] if match[0] == self.url else quote(variables[name], safe="")

        address = _VARIABLE.sub(value, self.url)
        try:
            return _checked(address)
        except ValueError as error:
            raise InputError(f"[storage] url: {error}.") from None


def _checked(url: str) -> str:
    """Return the address of a database; raise ValueError for anything else."""
    scheme = _SCHEME.match(url)
    if scheme is None or scheme[1].lower() not in DIALECTS:
        raise ValueError(
            f"trials are kept in PostgreSQL, MySQL or SQLite (postgresql://USER@HOST/DATABASE, mysql+pymysql://…, "
            f"sqlite:///FILE), not in {without_passwords(url)!r}"
        )
    if scheme[1].lower() == "sqlite" and url[scheme.end() :].strip("/") in ("", ":memory:"):
        raise ValueError(f"{url!r} names no file")
    return url
