"""The atlas as one HTML page, from the Parquet records of fits: error against parameters, function by function."""

import io
from collections import defaultdict
from collections.abc import Iterable
from html import escape
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trans4init.reports.schema import RunRecord
from trans4init.reports.store import load_results

__all__ = ["PAGE", "write_atlas"]

PAGE = "atlas.html"

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
_MARKS = "osD^vP*Xph"

_STYLE = """body{font:15px/1.45 system-ui,sans-serif;color:#222;max-width:76rem;margin:2rem auto;padding:0 1rem}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(23rem,1fr));gap:1rem}
figure{margin:0}figure svg{width:100%;height:auto}table{border-collapse:collapse;font-size:13px}
td{white-space:nowrap}
td,th{padding:.15rem .6rem;text-align:right;border-bottom:1px solid #ddd}td:first-child,th:first-child,
td:nth-child(2),th:nth-child(2){text-align:left}details{margin:1rem 0}"""


def write_atlas(folder: Path) -> Path:
    """Write the page of all fits in `folder/results` beside them; where it is."""
    by_function: dict[str, list[RunRecord]] = defaultdict(list)
    for record in load_results(folder / "results").records:
        if record.phase == "fit":
            by_function[record.cell.function].append(record)
    nets = sorted({_label(record) for records in by_function.values() for record in records if not _kind(record)})
    figures = [_draw(name, by_function[name], nets) for name in sorted(by_function)]
    rows = [_row(record) for name in sorted(by_function) for record in _ordered(by_function[name])]
    page = folder / PAGE
    text = _page(figures, rows)
    temporary = page.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(page)
    return page


def _page(figures: list[str], rows: list[str]) -> str:
    head = "".join(f"<th>{word}</th>" for word in _COLUMNS)
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>trans4init: atlas of fits</title>
<style>{_STYLE}</style><h1>How well nets stand in for the functions of a Transformer</h1>
<p>Largest error on the fitted inputs against the number of trained values, both logarithmic. The grey line is the
smallest largest error of K free lines (2 K values): no piecewise-linear net is below it. Dashed lines are published
approximations. A fit that diverged is in the table, not in a figure.</p>
<div class="grid">{"".join(f"<figure>{figure}</figure>" for figure in figures)}</div>
<details open><summary>All fits</summary><table><tr>{head}</tr>{"".join(rows)}</table></details></html>
"""


def _draw(name: str, records: list[RunRecord], nets: list[str]) -> str:
    with rc_context(
        {"svg.hashsalt": "trans4init", "font.size": 8, "axes.spines.top": False, "axes.spines.right": False}
    ):
        figure = Figure(figsize=(4.2, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.set(title=name, xscale="log", yscale="log", xlabel="trained values", ylabel="largest error")
        for index, net in enumerate(nets):
            points = _points(record for record in records if _label(record) == net and not _kind(record))
            if points:
                colour, mark = _COLOURS[index % len(_COLOURS)], _MARKS[index % len(_MARKS)]
                dash = "-" if index < len(_COLOURS) else "--"
                [line] = axes.plot(*zip(*points, strict=True), label=net, color=colour, marker=mark, markersize=4)
                line.set(linestyle=dash, linewidth=1)
        _draw_references(axes, records)
        axes.grid(color="#eeeeee")
        if axes.lines:
            axes.legend(fontsize=6, frameon=False, ncols=2)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def _draw_references(axes: Axes, records: list[RunRecord]) -> None:
    floor = _points(record for record in records if _kind(record) == "limit")
    if floor:
        axes.plot(
            *zip(*floor, strict=True), color="#999999", linewidth=3, alpha=0.6, zorder=0, label="limit of K lines"
        )
    for record in records:
        error = _error(record)
        if _kind(record) == "published" and error:
            axes.axhline(error, color="#555555", linewidth=0.7, linestyle="--", zorder=0)
            axes.annotate(
                record.cell.net, (1.0, error), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=6
            )


def _points(records: Iterable[RunRecord]) -> list[tuple[float, float]]:
    found = [(record.last("net_parameters"), _error(record)) for record in records if record.status == "ok"]
    return sorted((x, y) for x, y in found if x and y)


def _kind(record: RunRecord) -> str:
    """Empty for a net that was fitted."""
    return record.notes.get("kind", "")


def _label(record: RunRecord) -> str:
    return record.cell.net


def _error(record: RunRecord, quantity: str = "max_error", region: str = "") -> float | None:
    return record.last(f"{quantity}/{region or record.notes.get('fitted_on', '')}")


def _ordered(records: list[RunRecord]) -> list[RunRecord]:
    return sorted(records, key=lambda record: (_kind(record), record.cell.net, record.last("net_parameters") or 0))


_COLUMNS = (
    "function",
    "net",
    "values",
    "FLOP",
    "fitted on",
    "largest error",
    "RMS",
    "largest relative",
    "ulp",
    "derivative's largest",
    "largest 1–2×",
    "largest 2–4×",
    "µs",
    "µs folded",
    "µs closed form",
    "s to fit",
)


def _row(record: RunRecord) -> str:
    regions = [m.metric.name.split("/", 1)[1] for m in record.measurements if m.metric.name.startswith("max_error/")]
    outside = regions[1:]
    remark = _kind(record) or ("" if record.status == "ok" else record.status)
    cells = [
        record.cell.function,
        record.cell.net + (f" ({remark})" if remark else ""),
        _number(record.last("net_parameters"), "g"),
        _number(record.last("net_flops"), "g"),
        record.notes.get("fitted_on", ""),
        *(
            _number(_error(record, quantity))
            for quantity in ("max_error", "rms_error", "max_relative_error", "max_ulp_error", "derivative_max_error")
        ),
        _number(_worst(record, outside[0::2])),
        _number(_worst(record, outside[1::2])),
        *(
            _number(record.last(name), ".3g")
            for name in ("call_time", "folded_call_time", "analytic_call_time", "fit_time")
        ),
    ]
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _worst(record: RunRecord, regions: list[str]) -> float | None:
    errors = [error for region in regions if (error := _error(record, region=region)) is not None]
    return max(errors, default=None)


def _number(value: float | None, form: str = ".2e") -> str:
    return "" if value is None else format(value, form)
