"""Public data sets by name: where each file is, and the hash that it must have."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from trans4init.ablations.errors import InputError

__all__ = ["DATASETS", "DataFile", "fetch"]

FOLDER_VARIABLE = "TRANS4INIT_DATA"


@dataclass(frozen=True)
class DataFile:
    """A public file: its name under the data folder, its address, its SHA-256 and its terms."""

    name: str
    address: str
    sha256: str
    terms: str


DATASETS = {
    "tinyshakespeare": DataFile(
        name="tinyshakespeare/input.txt",
        address="https://raw.githubusercontent.com/karpathy/char-rnn/"
        "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        terms="public-domain text",
    ),
}


def fetch(file: DataFile) -> Path:
    """The file on this machine: from the folder named by TRANS4INIT_DATA, or downloaded once and cached.

    Raises InputError where it is in neither and can't be downloaded, and where its hash is another.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    local = Path(folder) / file.name if folder else None
    if local is not None and local.is_file():
        found = hashlib.sha256(local.read_bytes()).hexdigest()
        if found != file.sha256:
            raise InputError(f"{local} is not the public {file.name}: its SHA-256 is {found}, expected {file.sha256}.")
        return local
    import pooch
    import requests

    try:
        return Path(
            pooch.retrieve(
                file.address,
                f"sha256:{file.sha256}",
                fname=file.name,
                path=pooch.os_cache("trans4init"),
                progressbar=False,
            )
        )
    except (requests.RequestException, OSError, ValueError) as error:
        raise InputError(
            f"{file.name} could not be downloaded ({type(error).__name__}); "
            f"put it in a folder and name that folder in {FOLDER_VARIABLE}."
        ) from error
