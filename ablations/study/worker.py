"""What executors run for a study, in whatever process they choose. Imports torch when it is called."""

import dataclasses
from dataclasses import dataclass
from functools import partial

from trans4init.ablations.study.executors.protocol import Advanced, Apart, Finished, OnEvent
from trans4init.ablations.study.requests import Request, ResolvedStudy
from trans4init.reports.machine import capture
from trans4init.reports.records.schema import RunRecord

__all__ = ["PRELOAD", "StudyWorker"]

PRELOAD = "trans4init.ablations.study.preload"
"""The module that the server of worker processes imports once, for all of them."""


@dataclass(frozen=True)
class StudyWorker:
    """Runs requests of a study or a grid and sends what happens; it is the `Work` that executors are given."""

    studies: tuple[ResolvedStudy, ...]
    """The study, or each block of a grid."""
    elsewhere: bool = False
    """Whether it may run on another machine: then that machine's environment is recorded."""

    def __call__(self, requests: tuple[Request, ...], send: OnEvent[Request, RunRecord]) -> None:
        """Run one request, or together those of an array of runs, of fits of a net or of a throughput session."""
        from trans4init.ablations.study.trained_runs import NotTogetherError, run_array, run_request
        from trans4init.ablations.study.work import run_fits, run_throughput

        def advanced(step: int, steps: int, loss: float) -> None:
            send(Advanced(requests, step, steps, loss))

        study = next(study for study in self.studies if study.spec_hash == requests[0].spec_hash)
        study = dataclasses.replace(study, environment=capture()) if self.elsewhere else study
        kept: dict[str, bytes] = {}
        if requests[0].phase == "throughput":
            records = run_throughput(study, list(requests))
        elif requests[0].phase == "fit":
            records = run_fits(study, list(requests), advanced)
        elif len(requests) > 1:
            try:
                records = run_array(study, requests, advanced, kept.__setitem__)
            except NotTogetherError as why:
                send(Apart(requests, str(why), why.smaller))
                return
        else:
            records = [run_request(study, requests[0], advanced, partial(kept.__setitem__, requests[0].run_id))]
        send(Finished(requests, tuple(records), kept))
