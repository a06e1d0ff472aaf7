"""The agenda of a grid: which runs of all its blocks are finished, and which can run next. Uses no process or disk."""

from collections.abc import Collection, Mapping, Sequence

from trans4init.ablations.study.agenda import Agenda
from trans4init.ablations.study.requests import Request, ResolvedStudy
from trans4init.reports.records.schema import RunRecord

__all__ = ["GridAgenda"]


class GridAgenda:
    """Orders the runs of a grid: block after block as each one's agenda says, the throughput sessions of all last.

    While the last runs of a block go on, the next block begins: processes don't wait for one another.
    """

    def __init__(self, blocks: Sequence[Agenda]) -> None:
        self.blocks = tuple(blocks)
        self._of = {block.study.spec_hash: block for block in self.blocks}

    def block_of(self, run: Request | RunRecord) -> Agenda:
        """Return the agenda of the block that a run belongs to."""
        return self._of[run.spec_hash]

    @property
    def studies(self) -> tuple[ResolvedStudy, ...]:
        """The blocks as their results have grown them: an error budget may have been given more nets."""
        return tuple(block.study for block in self.blocks)

    @property
    def finished(self) -> Mapping[str, RunRecord]:
        """The finished runs of all blocks, by id."""
        return {run_id: record for block in self.blocks for run_id, record in block.finished.items()}

    def add(self, record: RunRecord) -> None:
        """Note that a run is finished."""
        self.block_of(record).add(record)

    def total(self) -> int:
        """Return how many runs all blocks have; each throughput session counts once."""
        return sum(block.total() for block in self.blocks)

    def done(self) -> int:
        """Return how many of them are finished."""
        return sum(block.done() for block in self.blocks)

    def fitted(self) -> int:
        """Return how many fits are finished."""
        return sum(block.fitted() for block in self.blocks)

    def complete(self) -> bool:
        """Return whether nothing is left that can run."""
        return all(block.complete() for block in self.blocks)

    def next(self, in_flight: Collection[Request]) -> tuple[Request, ...]:
        """Return what to run next besides what is `in_flight`; empty if there is nothing to run now.

        A throughput session comes only where no block has any other run, and nothing is in flight.
        """
        session: tuple[Request, ...] = ()
        for block in self.blocks:
            requests = block.next(in_flight)
            if requests and requests[0].phase != "throughput":
                return requests
            session = session or requests
        return session

    def stopped(self) -> list[tuple[Request, str]]:
        """Return the tuning runs that are never started, since their trial fell behind, each with the reason."""
        return [stopped for block in self.blocks for stopped in block.stopped()]

    def lost(self) -> list[tuple[Request, RunRecord]]:
        """Return the runs that can never be done, each with the fit that it needs and that went wrong."""
        return [lost for block in self.blocks for lost in block.lost()]
