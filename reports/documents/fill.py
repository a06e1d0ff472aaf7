"""Fill Markdown documents with numbers: the text between two marks is made from published results.

A mark says what to show, so that another table needs another mark and no code:

    <!-- speed suite=attention operators="attention step" columns="auto, bias; eager table, bias" show=ms -->
    <!-- /speed -->

suite: the benchmark's. operators, columns: which of its operators and implementations to show, in this order,
separated by semicolons; all of them by default. show: ms (medians, the default), ratio (how many times as fast as the
baseline), MiB, or work (tokens per second, runs per hour). `<!-- verdict study=NAME -->` is for the verdict of a
published study, `<!-- duration study=NAME -->` for how long it took, and `<!-- trained metrics="bleu; accuracy" -->`
for what the models of `trans4init train` reached. `python -m trans4init.reports.documents.fill FILE…` fills files.
"""

import functools
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from trans4init.reports.documents.trained_table import trained_table
from trans4init.reports.files import write_whole
from trans4init.reports.formats import significant
from trans4init.reports.machine import MOST_CONTENDED
from trans4init.reports.records import metrics
from trans4init.reports.records.store import Results, load_results
from trans4init.reports.speed.speeds import STUDY, CaseSpeeds, Speed, SuiteSpeeds, contended_rounds, speeds
from trans4init.reports.study_report.blocks import study_text, summaries

__all__ = ["DOCUMENTS", "MarkError", "filled"]

DOCUMENTS = (
    "README.md",
    "ablations/training/README.md",
    "bench/README.md",
    "kernels/attention/README.md",
    "kernels/positional_mlp/README.md",
)
_SPEEDS, _STUDIES = "bench/results", "reports/published"
"""The project's folders with a folder for each device, whose results are published: benchmarks; studies and trained
models."""
_MARK = re.compile(r"(<!-- (speed|verdict|duration|trained)( [^>]*?)? -->\n)(.*?)(<!-- /\2 -->)", re.DOTALL)
_TOO_MANY = f"More than {MOST_CONTENDED:.0%} of the rounds were contended: these numbers are to be measured again."
"""What a table of such rounds says of itself."""
_SHOWN = ("ms", "ratio", "MiB", "work")


class MarkError(ValueError):
    """A mark asks for something that is not published, or is misspelt."""


def filled(text: str, project: Path) -> str:
    """Return the document with everything between its marks made anew from the results that `project` publishes.

    project: the folder that holds `bench/results` and `reports/published`. Raises MarkError for a mark that is wrong.
    """
    makers: dict[str, Callable[[Path, Mapping[str, str]], str]] = {
        "speed": _speed_tables,
        "verdict": _verdict,
        "duration": _duration,
        "trained": _trained,
    }

    def fill(mark: re.Match[str]) -> str:
        begin, kind, written_options, _, end = mark.groups()
        options = dict(option.partition("=")[::2] for option in shlex.split(written_options or ""))
        return f"{begin}{makers[kind](project, options)}\n{end}"

    return _MARK.sub(fill, text)


def _published(folder: Path, name: str) -> list[Results]:
    """Return the results that are published under `name`, device by device."""
    return [load_results(path) for path in sorted(folder.glob(f"*/{name}/results"))]


def _study(project: Path, options: Mapping[str, str]) -> Results:
    name = options.get("study")
    devices = _published(project / _STUDIES, name) if name else []
    if not devices:
        raise MarkError(f"no study {name!r} is published in {project / _STUDIES}")
    return devices[0]


def _verdict(project: Path, options: Mapping[str, str]) -> str:
    results = _study(project, options)
    lines = study_text(summaries(results), results.cards).lines()
    return "\n>\n".join(f"> {line}" for line in lines)


def _duration(project: Path, options: Mapping[str, str]) -> str:
    """Say how long a study took, from the beginning of its first run to the end of its last."""
    records = _study(project, options).records
    began = min(run.created_at.timestamp() - (run.last(metrics.WALL_TIME.name) or 0) for run in records)
    seconds = max(record.created_at.timestamp() for record in records) - began
    environment = records[0].environment
    return (
        f"It took {seconds // 60:.0f} min {seconds % 60:.0f} s on {environment.cores} cores ({environment.processor})."
    )


def _trained(project: Path, options: Mapping[str, str]) -> str:
    """Return a table for each device on which models were trained."""
    wanted = _listed(options.get("metrics"))
    if not wanted or set(options) != {"metrics"}:
        raise MarkError("a trained mark has metrics=, the names of the metrics to show, separated by semicolons")
    tables = []
    for results in _published(project / _STUDIES, "trained"):
        records = results.records
        machine = records[0].environment.accelerator or records[0].environment.processor
        tables.append(f"{trained_table(records, wanted)}\n\nTest splits; {machine}.")
    return "\n\n".join(tables) or "Nothing published yet."


def _speed_tables(project: Path, options: Mapping[str, str]) -> str:
    """Return a table for each machine on which the suite was measured."""
    suite, show = options.get("suite", ""), options.get("show", "ms")
    unknown = set(options) - {"suite", "operators", "columns", "show"}
    if not suite or show not in _SHOWN or unknown:
        raise MarkError(f"a speed mark has suite=, and optionally operators=, columns=, show= ({', '.join(_SHOWN)})")
    tables = [_table(measured, options, show) for measured in _suites(project) if measured.suite == suite]
    return "\n\n".join(tables) or f"Not measured yet; `trans4init bench --suite {suite}` does."


@functools.cache
def _suites(project: Path) -> list[SuiteSpeeds]:
    """Return all suites that the project publishes; read once for all marks."""
    return speeds(record for results in _published(project / _SPEEDS, STUDY) for record in results.records)


def _table(suite: SuiteSpeeds, options: Mapping[str, str], show: str) -> str:
    operators = _listed(options.get("operators"))
    cases = [case for case in suite.cases if operators is None or case.operator in operators]
    timed = dict.fromkeys(speed.implementation for case in cases for speed in case.speeds if speed.milliseconds)
    columns = [name for name in _listed(options.get("columns")) or timed if name in timed]
    if show == "ratio":
        columns = [name for name in columns if name != suite.baseline]
    if not columns:
        raise MarkError(f"suite {suite.suite} on {suite.machine} has no measurement that fits {dict(options)}")
    one_operator = len({case.operator for case in cases}) == 1
    with_least = show == "ms" and any(case.least_milliseconds for case in cases)
    heads = [cases[0].operator if one_operator else "", *columns, *(["at least"] if with_least else [])]
    lines = [_row(heads), _row(["---", *["---:"] * (len(heads) - 1)])]
    for case in cases:
        by_name = {speed.implementation: speed for speed in case.speeds}
        cells = [_cell(by_name.get(name), show) for name in columns]
        least = [f"{case.least_milliseconds:.2g}" if case.least_milliseconds else "–"] if with_least else []
        lines.append(_row([case.size if one_operator and case.size else case.name(), *cells, *least]))
    return "\n".join([*lines, "", _source(suite, cases, show)])


def _source(suite: SuiteSpeeds, cases: Sequence[CaseSpeeds], show: str) -> str:
    """Return the line below a table: what the numbers are, and where they were measured."""
    what = {
        "ms": "Milliseconds, medians",
        "ratio": f"Times as fast as {suite.baseline}, medians of the rounds' ratios with 95 % intervals over the rounds"
        " of one process",
        "MiB": "MiB above the inputs, at most",
        "work": "Medians",
    }[show]
    when = max(record.created_at for record in suite.records)
    contention = contended_rounds(cases)
    warning = f" **{_TOO_MANY}**" if contention.too_many() and show != "MiB" else ""  # memory doesn't hang on others
    commit = f"commit {suite.commit[:10]}, " if suite.commit else ""
    return f"{what}; {suite.machine}; {commit}{when:%Y-%m-%d}; {contention}.{warning}"


def _cell(speed: Speed | None, show: str) -> str:
    if speed is None or speed.milliseconds is None:
        return "–" if speed is None or speed.status in ("missing", "ok") else speed.status
    if show == "ratio":
        interval = speed.ratio_interval
        limits = f" [{interval.low:.2f}, {interval.high:.2f}]" if interval else ""
        return "–" if speed.ratio is None else f"{speed.ratio:.2f}{limits}"
    if show == "MiB":
        return "–" if speed.peak_bytes is None else f"{speed.peak_bytes / 2**20:.1f}"
    if show == "work":
        return "–" if speed.work is None else f"{speed.work.rate:,.0f} {speed.work.unit}"
    return significant(speed.milliseconds.median)


def _listed(option: str | None) -> list[str] | None:
    """Return the parts of an option that semicolons separate."""
    return None if option is None else [part.strip() for part in option.split(";")]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(files: Sequence[str]) -> None:
    """Fill these files, or all documents of the project; the current folder is the project's."""
    for name in files or DOCUMENTS:
        path = Path(name)
        before = path.read_text(encoding="utf-8")
        after = filled(before, Path())
        if after != before:
            write_whole(path, after)
        print(f"{'filled again' if after != before else 'up to date'}: {path}")
    for suite in _suites(Path()):
        if (contention := suite.contention()).too_many():
            print(
                f"to be measured again: suite {suite.suite} on {suite.machine}, {contention}, "
                f"and a published table may have {MOST_CONTENDED:.0%}"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
