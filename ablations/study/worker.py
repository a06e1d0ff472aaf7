"""What executors run for a study, in whatever process they choose. Imports torch when it is called."""

import dataclasses
from dataclasses import dataclass

from trans4init.ablations.study.executors.protocol import Advanced, Finished, OnEvent
from trans4init.ablations.study.requests import Request, ResolvedStudy
from trans4init.reports.machine import capture
from trans4init.reports.records.schema import RunRecord

__all__ = ["PRELOAD", "StudyWorker"]

PRELOAD = "trans4init.ablations.study.preload"
"""The module that the server of worker processes imports once, for all of them."""


@dataclass(frozen=True)
class StudyWorker:
    """Runs requests of a study and sends what happens; it is the `Work` that executors are given."""

    study: ResolvedStudy
    elsewhere: bool = False
    """Whether it may run on another machine: then that machine's environment is recorded."""

    def __call__(self, requests: tuple[Request, ...], send: OnEvent[Request, RunRecord]) -> None:
        """Run one request, or the requests of a throughput session."""
        from trans4init.ablations.study.work import run_request, run_throughput

        study = dataclasses.replace(self.study, environment=capture()) if self.elsewhere else self.study
        if requests[0].phase == "throughput":
            records = run_throughput(study, list(requests))
        else:
            records = [
                run_request(study, requests[0], lambda step, steps, loss: send(Advanced(requests, step, steps, loss)))
            ]
        send(Finished(requests, tuple(records)))
