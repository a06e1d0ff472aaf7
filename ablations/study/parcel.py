"""Send a study's work to machines that have none of its files: its data, its code and its nets go along, by value."""

import atexit
import dataclasses
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from trans4init.ablations.data.datasets import FOLDER_VARIABLE, fetched
from trans4init.ablations.errors import FaultError, shown
from trans4init.ablations.lock import process_name
from trans4init.ablations.settings.toml_file import code_files
from trans4init.ablations.study.executors.protocol import OnEvent
from trans4init.ablations.study.requests import Request, ResolvedStudy
from trans4init.reports.files import write_whole
from trans4init.reports.records.schema import RunRecord

__all__ = ["StudyParcel", "needed_nets", "parcel_of", "take_nets"]

_NET = re.compile(r"checkpoints/fit-[0-9a-f]+/[\w.]+", re.ASCII)
"""What a machine may send back: a file of a fitted net."""


class _Worker(Protocol):
    """Runs requests of a study, or of a grid's blocks."""

    @property
    def studies(self) -> tuple[ResolvedStudy, ...]:
        """The study, or the blocks."""

    def __call__(self, requests: tuple[Request, ...], on_event: OnEvent[Request, RunRecord]) -> None:
        """Run the requests."""

    def of(self, studies: tuple[ResolvedStudy, ...]) -> "_Worker":
        """Return the worker of other studies."""


@dataclass(frozen=True)
class StudyParcel:
    """Holds a study's worker, pickled, and the files that it needs on any machine."""

    worker: bytes
    code: Mapping[str, bytes]
    """Contents of the user's files of code, by their paths relative to the current folder."""
    data: Mapping[str, bytes]
    """Contents of the user's files of data, by their absolute paths."""
    public: Mapping[str, bytes]
    """Contents of public data sets' files, by name."""
    device: str
    """What `--device` names; empty where nothing was chosen."""
    holder: str
    """What the process that runs the study is called: where its folder says so, it is shared."""

    def do(
        self, requests: bytes, files: Mapping[str, bytes], on_event: OnEvent[Request, RunRecord]
    ) -> dict[str, bytes]:
        """Run pickled requests in a folder of this process's own; return the nets that they made."""
        from trans4init.ablations.device import DEVICE  # which imports torch

        room = _room()
        if self.device:
            os.environ[DEVICE] = self.device
        if self.public:
            os.environ[FOLDER_VARIABLE] = str(room / "public")
            _write(room / "public", self.public)
        os.chdir(_folder_for(self.code, room))  # where what is named relative to the user's folder is found
        _write(Path(), self.code)
        places = {path: room / "data" / str(number) / Path(path).name for number, path in enumerate(self.data)}
        _write(Path(), {str(places[path]): content for path, content in self.data.items()})
        worker: _Worker = pickle.loads(self.worker)
        asked: tuple[Request, ...] = pickle.loads(requests)
        folder = worker.studies[0].folder
        shared = bool(self.holder) and _holder(folder) == self.holder
        if not shared:
            folder = room / "study"
            _write(folder, files)
        studies = tuple(_placed(study, folder, places) for study in worker.studies)
        before = set() if shared else set(_nets(folder))
        worker.of(studies)(asked, on_event)
        new = [] if shared else [path for path in _nets(folder) if path not in before]
        return {path: (folder / path).read_bytes() for path in new}


_ROOMS: list[Path] = []


def _room() -> Path:
    """Return the folder of this process: what it got once needs not be written again."""
    if not _ROOMS:
        _ROOMS.append(Path(tempfile.mkdtemp(prefix="trans4init-")))
        atexit.register(shutil.rmtree, _ROOMS[0], ignore_errors=True)
    return _ROOMS[0]


def parcel_of(worker: _Worker) -> StudyParcel:
    """Return what a worker needs on another machine; raises FaultError for a file that can't be read."""
    from trans4init.ablations.device import DEVICE

    code, data = set[str](), set[str]()
    for study in worker.studies:
        code.update(map(os.path.relpath, code_files(study.spec.model_dump(mode="json", exclude={"storage"}))))
        source = getattr(study.spec.task, "source", None)
        if isinstance(source, str) and os.path.isfile(source):
            data.add(source)
    holder = process_name() if _holder(worker.studies[0].folder) == process_name() else ""
    public = {name: _read(path) for name, path in fetched().items()}
    return StudyParcel(
        pickle.dumps(worker),
        {path: _read(Path(path)) for path in sorted(code)},
        {path: _read(Path(path)) for path in sorted(data)},
        public,
        os.environ.get(DEVICE, ""),
        holder,
    )


def needed_nets(studies: Sequence[ResolvedStudy], requests: Sequence[Request]) -> dict[str, bytes]:
    """Return the files of the fitted nets that requests need, by their paths in the study's folder."""
    of_hash = {study.spec_hash: study for study in studies}
    found = {}
    for request in requests:
        fit = of_hash[request.spec_hash].fit_of(request)
        folder = fit and studies[0].checkpoint_of(fit.run_id)
        for path in sorted(folder.iterdir()) if folder else ():
            found[path.relative_to(studies[0].folder).as_posix()] = _read(path)
    return found


def take_nets(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write fitted nets that were made elsewhere; the description of each comes last, as when it is made here.

    Raises FaultError where the disk refuses, and for anything that is no net.
    """
    for name in sorted(files, key=lambda name: name.endswith("card.json")):
        if not _NET.fullmatch(name):
            raise FaultError(f"a machine of the cluster sent {name!r}, which is no fitted net.")
        try:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_whole(folder / name, files[name])
        except OSError as error:
            raise FaultError(f"a fitted net can't be written to {shown(folder)}: {error.strerror}.") from error


def _placed(study: ResolvedStudy, folder: Path, places: Mapping[str, Path]) -> ResolvedStudy:
    """Return the study in a folder of this machine, with its data where they were written."""
    task = study.spec.task
    source = getattr(task, "source", None)
    if isinstance(source, str) and source in places:
        spec = study.spec.model_copy(update={"task": task.model_copy(update={"source": str(places[source])})})
        study = dataclasses.replace(study, spec=spec)
    return dataclasses.replace(study, folder=folder)


def _folder_for(code: Mapping[str, bytes], room: Path) -> Path:
    """Make and return a folder so deep in `room` that the relative paths of all code, `../` first, stay there."""
    up = max((PurePosixPath(path).parts.count("..") for path in code), default=0)
    folder = room.joinpath("code", *(["below"] * up))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)


def _nets(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in (folder / "checkpoints").glob("fit-*/*") if path.is_file()]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FaultError(f"{shown(path)} can't be read: {error.strerror}.") from None


def _holder(folder: Path) -> str:
    """Return which process runs a study in a folder; empty where there is none."""
    try:
        return (folder / ".holder").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
