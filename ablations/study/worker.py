"""What executors run for a study, in whatever process they choose. Imports torch when it is called."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from trans4init.ablations.errors import FaultError
from trans4init.ablations.settings.memory import least_bytes
from trans4init.ablations.study.executors.protocol import Advanced, Apart, Finished, OnEvent, Refused, Resources
from trans4init.ablations.study.parcel import StudyParcel, needed_nets, parcel_of, take_nets
from trans4init.ablations.study.requests import Request, ResolvedStudy
from trans4init.reports.machine import capture
from trans4init.reports.records.schema import RunRecord

__all__ = ["PRELOAD", "StudyWorker"]

PRELOAD = "trans4init.ablations.study.preload"
"""The module that the server of worker processes imports once, for all of them."""
_LEAST_MEMORY = 2**29
"""Bytes that a worker takes however small its model is: libraries and data."""


@dataclass(frozen=True)
class StudyWorker:
    """Runs requests of a study or a grid and sends what happens; it is the `Work` that executors are given."""

    studies: tuple[ResolvedStudy, ...]
    """The study, or each block of a grid."""
    elsewhere: bool = False
    """Whether it may run on another machine: then that machine's environment is recorded."""
    gpus: float | None = None
    """The GPUs that a unit takes on a cluster; None: one, where there are any."""

    def __call__(self, requests: tuple[Request, ...], on_event: OnEvent[Request, RunRecord]) -> None:
        """Run one request, or together those of an array of runs, of fits of a net or of a throughput session."""
        from trans4init.ablations.study.trained_runs import NotTogetherError, run_array, run_request
        from trans4init.ablations.study.work import run_fits, run_throughput

        def advanced(step: int, steps: int, loss: float) -> None:
            on_event(Advanced(requests, step, steps, loss))

        study = next(study for study in self.studies if study.spec_hash == requests[0].spec_hash)
        study = dataclasses.replace(study, environment=capture()) if self.elsewhere else study
        kept: dict[str, bytes] = {}
        try:
            if requests[0].phase == "throughput":
                records = run_throughput(study, list(requests))
            elif requests[0].phase == "fit":
                records = run_fits(study, list(requests), advanced)
            elif len(requests) > 1:
                records = run_array(study, requests, advanced, kept.__setitem__)
            else:
                records = [run_request(study, requests[0], advanced, partial(kept.__setitem__, requests[0].run_id))]
        except NotTogetherError as why:
            on_event(Apart(requests, str(why), why.smaller))
        except FaultError as fault:
            on_event(Refused(requests, str(fault)))
        else:
            on_event(Finished(requests, tuple(records), kept))

    def of(self, studies: tuple[ResolvedStudy, ...]) -> "StudyWorker":
        """Return the worker of other studies."""
        return dataclasses.replace(self, studies=studies)

    def resources(self) -> Resources:
        """Return what a unit takes: the cores that a study asks for, all of a GPU or a share, the memory of a run."""
        sections = [(study.spec.model, study.spec.training) for study in self.studies]
        cores, memory = max(training.threads for _, training in sections), max(least_bytes(*of) for of in sections)
        return Resources(cores, self.gpus, max(memory, _LEAST_MEMORY))

    def parcel(self) -> StudyParcel:
        """Return the work with the user's data and code, for machines that have none of them."""
        return parcel_of(self)

    def needs(self, requests: tuple[Request, ...]) -> Mapping[str, bytes]:
        """Return the files of the fitted nets that the requests need."""
        return needed_nets(self.studies, requests)

    def take(self, files: Mapping[str, bytes]) -> None:
        """Write fitted nets that another machine made into the study's folder."""
        take_nets(self.studies[0].folder, files)
