"""Pack a folder of results into one file, and unpack it on another machine: what comes from there is data, checked."""

import errno
import os
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

from trans4init.reports.records.kept_slots import SLOTS
from trans4init.reports.records.store import Results, load_results, write_bundle, write_cards

__all__ = ["SUFFIX", "UnreadablePackError", "pack", "unpacked"]

SUFFIX = ".zip"
_MEMBER = re.compile(rf"(results/[\w.-]+\.parquet|{SLOTS}/[\w.-]+\.safetensors|spec\.json)", re.ASCII)
"""What may be in a packed file; everything else is refused, so that nothing is written beside the folder."""
_LARGEST = 16 * 2**30
"""The most bytes that a packed file may hold when it is unpacked."""


class UnreadablePackError(Exception):
    """A packed file is damaged, or holds something else than results. The message says what."""


def pack(folder: Path, results: Results, path: Path) -> Path:
    """Write a folder's results into one file, bundled, with its spec and what its runs kept of their slots; its path.

    Raises OSError where the system refuses; a file that was at `path` is then still there.
    """
    temporary = path.with_name(f"{path.name}.part")
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as room:
            bundled = Path(room) / "results"
            write_bundle(results.records, bundled)
            if results.cards:
                write_cards(results.cards, bundled)
            own = [folder / "spec.json", *sorted((folder / SLOTS).glob("*.safetensors"))]
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:  # Parquet is compressed already
                for member in sorted(bundled.iterdir()):
                    file.write(member, f"results/{member.name}")
                for member in filter(Path.is_file, own):
                    file.write(member, member.relative_to(folder))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def unpacked(path: Path, room: Path) -> Results:
    """Unpack a file into the empty folder `room`, and return its results, whose digests were checked.

    Raises UnreadablePackError, OSError where the system refuses, and UnreadableSchemaError for results of another
    version.
    """
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            for member in members:
                if not _MEMBER.fullmatch(member.filename):
                    raise UnreadablePackError(
                        f"it holds {member.filename[:80]!r}, which is no part of a study's results"
                    )
            if (total := sum(member.file_size for member in members)) > _LARGEST:
                raise UnreadablePackError(f"it holds {total / 1e9:.0f} GB, and {_LARGEST / 1e9:.0f} are taken at most")
            if total > shutil.disk_usage(room).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(room))
            for member in members:
                target = room / member.filename
                target.parent.mkdir(exist_ok=True)
                with file.open(member) as source, target.open("xb") as sink:
                    shutil.copyfileobj(source, sink)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, FileExistsError) as error:
        raise UnreadablePackError(f"it is damaged: {error}") from None
    results = load_results(room / "results")
    if results.corrupt:
        raise UnreadablePackError(f"{results.corrupt[0].name.removesuffix('.corrupt')} in it is damaged")
    if not results.records:
        raise UnreadablePackError("it holds no results")
    if len({record.study for record in results.records}) > 1:
        raise UnreadablePackError("it holds results of several studies")
    return results
