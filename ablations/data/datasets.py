"""Fetch files of public data sets by name, and check their hashes."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from trans4init.ablations.errors import InputError

__all__ = ["DATASETS", "FOLDER_VARIABLE", "DataFile", "fetch", "fetched"]

FOLDER_VARIABLE = "TRANS4INIT_DATA"
"""The environment variable that names a folder with public data sets, which is looked in before a download."""


@dataclass(frozen=True)
class DataFile:
    """Describes a public file: its name in the data folder, its address, its SHA-256 and its terms of use."""

    name: str
    address: str
    sha256: str
    terms: str


_MULTI30K = (
    "https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw/"
)
_SCAN = "https://raw.githubusercontent.com/brendenlake/SCAN/c4b756cbc010d75c912f16c42c8f15dc6b7e6c8f/"
_SST2 = (
    "https://raw.githubusercontent.com/clairett/pytorch-sentiment-classification/"
    "457ffd83de90a9d6d472d8ffc31bbffe40a8b236/data/SST2/"
)
_RESEARCH = "research use"

_FILES = (
    DataFile(
        name="tinyshakespeare/input.txt",
        address="https://raw.githubusercontent.com/karpathy/char-rnn/"
        "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        terms="public-domain text",
    ),
    *(
        DataFile(f"multi30k/{name}.gz", f"{_MULTI30K}{name}.gz", sha256, f"{_RESEARCH}; cite Elliott et al. 2016")
        for name, sha256 in {
            "train.de": "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
            "train.en": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
            "val.de": "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
            "val.en": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
            "test_2016_flickr.de": "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
            "test_2016_flickr.en": "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
        }.items()
    ),
    *(
        DataFile(f"scan/tasks_{part}_{split}.txt", f"{_SCAN}{split}_split/tasks_{part}_{split}.txt", sha256, "BSD")
        for (part, split), sha256 in {
            ("test", "length"): "0760752ed34a75116ae11dcc1ee17526b7500060da1366540730fa24894d7db3",
            ("test", "simple"): "1fe1c8f5a19d0dc40e41bab94278f45f66f3dc415a978bd29855a23440610fc6",
            ("train", "length"): "b034212dc7cf87ce62f3a067dd6ad49c4d5cd18d51d615d13825516bcb1ebbc2",
            ("train", "simple"): "941bb8a088c5f53ceff12fde902dc008933cf0c4203cc672c47b5f79d73262dd",
        }.items()
    ),
    *(
        DataFile(f"sst2/{name}", f"{_SST2}{name}", sha256, f"Stanford Sentiment Treebank, {_RESEARCH}")
        for name, sha256 in {
            "dev.tsv": "eddea6b39e601dd4e7a672b53cc40fdf6019fa80522f351206c24340ca5d9359",
            "test.tsv": "831169c7e2e429d6026e1bdbb542f33b636e3e596caad9602ebc953c205928b7",
            "train.tsv": "ec192f833a64da08f475488a77b0d0b47db47acd0f458bd18433fc793b569920",
        }.items()
    ),
)

DATASETS = {file.name: file for file in _FILES}
"""Every public file by its name in the data folder."""


_FETCHED: dict[str, Path] = {}


def fetched() -> dict[str, Path]:
    """Return the public files that this process has read, by name: what another machine needs to read the same data."""
    return dict(_FETCHED)


def fetch(file: DataFile) -> Path:
    """Return the file's path, in the folder that TRANS4INIT_DATA names or in the cache, downloaded if need be.

    Raises InputError if the file can't be downloaded, or if its hash is not the expected one.
    """
    _FETCHED[file.name] = path = _fetched(file)
    return path


def _fetched(file: DataFile) -> Path:
    folder = os.environ.get(FOLDER_VARIABLE)
    local = Path(folder) / file.name if folder else None
    if local is not None and local.is_file():
        digest = hashlib.sha256(local.read_bytes()).hexdigest()
        if digest != file.sha256:
            raise InputError(f"{local} is not the public {file.name}: its SHA-256 is {digest}, expected {file.sha256}.")
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
            f"put it in a folder, under that name, and set {FOLDER_VARIABLE} to the folder."
        ) from error
