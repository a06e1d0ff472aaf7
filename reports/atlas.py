"""Write the atlas: one HTML page of all fits, error against parameters, function by function, from their records."""

import hashlib
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from html import escape
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trans4init.reports.drawing import as_svg, drawing_style
from trans4init.reports.files import write_whole
from trans4init.reports.records import metrics
from trans4init.reports.records.schema import RunRecord
from trans4init.reports.records.store import load_results

__all__ = ["PAGE", "write_atlas"]

PAGE = "atlas.html"

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
_MARKS = "osD^vP*Xph"
_LABEL = 0.055
"""The least distance of two labels in a figure, as a share of the axes' height."""

_STYLE = """body{font:15px/1.45 system-ui,sans-serif;color:#222;max-width:72rem;margin:2rem auto;padding:0 1rem}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(23rem,1fr));gap:1rem}
figure{margin:0}figure svg{width:100%;height:auto}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:12px;font-variant-numeric:tabular-nums;width:100%}
td{white-space:nowrap}th{vertical-align:bottom;line-height:1.2}
td,th{padding:.15rem .35rem;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left;padding-left:0}h3{margin:1.6rem 0 .3rem;font-size:15px}
nav a{margin-right:.7rem;white-space:nowrap}.soft{color:#666}"""


def write_atlas(folder: Path) -> Path:
    """Write the page of all fits in `folder/results` into `folder`, and return its path."""
    by_function: dict[str, list[RunRecord]] = defaultdict(list)
    for record in load_results(folder / "results").records:
        if record.phase == "fit":
            by_function[record.cell.function].append(record)
    nets = sorted({record.cell.net for records in by_function.values() for record in records if not _kind(record)})
    figures = _figures(by_function, nets, folder / "figures" / "atlas")
    tables = [_table(name, _ordered(by_function[name])) for name in sorted(by_function)]
    page = folder / PAGE
    write_whole(page, _page(figures, tables))
    return page


def _figures(by_function: dict[str, list[RunRecord]], nets: list[str], cache: Path) -> list[str]:
    """Return a figure for each function as SVG, in the order of their names.

    A figure that the same code drew of the same fits is read from `cache`; files that no figure needs are deleted.
    """
    code, paths, figures = Path(__file__).read_bytes(), set(), []
    cache.mkdir(parents=True, exist_ok=True)
    for name in sorted(by_function):
        fits = [(record.run_id, record.created_at.isoformat(), record.status) for record in by_function[name]]
        path = cache / f"{hashlib.sha256(repr((name, nets, sorted(fits))).encode() + code).hexdigest()[:16]}.svg"
        paths.add(path)
        if not path.exists():
            write_whole(path, _draw(name, by_function[name], nets))
        figures.append(path.read_text(encoding="utf-8"))
    for old in set(cache.glob("*.svg")) - paths:
        old.unlink()
    return figures


def _page(figures: list[str], tables: list[str]) -> str:
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>trans4init: atlas of fits</title>
<style>{_STYLE}</style><h1>How well nets stand in for the functions of a Transformer</h1>
<p>Largest error on the fitted inputs against the number of trained values, both logarithmic. The grey line is the
smallest largest error of K free lines (2 K values): no piecewise-linear net is below it. Dashed lines are published
approximations. A fit that diverged, or that is on other inputs than most, is in the table, not in a figure.</p>
<div class="grid">{"".join(f"<figure>{figure}</figure>" for figure in figures)}</div>
<h2>All fits</h2>
<p class="soft">Errors are in units of the function's values; relative to the value, and in units in the last place of
the value as a float32, where the value is not 0. Columns 1–2× and 2–4× are of inputs 1 to 2 and 2 to 4 times as far
out as the fitted ones, on the worse side. Times are of one call on all inputs of the figure, on one thread.</p>
{"".join(tables)}</html>
"""


def _draw(name: str, records: list[RunRecord], nets: list[str]) -> str:
    """Return the figure of a function's fits; a net has the same colour and mark in all figures."""
    with drawing_style(8):
        domain = _panel_domain(records)
        records = [record for record in records if record.notes.get("fitted_on") == domain]
        figure = Figure(figsize=(4.2, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.set(title=name, xscale="log", yscale="log", xlabel="trained values", ylabel="largest error")
        for index, net in enumerate(nets):
            points = _points(record for record in records if record.cell.net == net and not _kind(record))
            if points:
                colour, mark = _COLOURS[index % len(_COLOURS)], _MARKS[index % len(_MARKS)]
                dash = "-" if index < len(_COLOURS) else "--"
                [line] = axes.plot(*zip(*points, strict=True), label=net, color=colour, marker=mark, markersize=4)
                line.set(linestyle=dash, linewidth=1)
        _draw_references(axes, records)
        axes.grid(color="#eeeeee")
        if axes.lines:
            axes.legend(fontsize=6, frameon=False, ncols=2)
        text = as_svg(figure)
    return text[text.index("<svg") :]


def _draw_references(axes: Axes, records: list[RunRecord]) -> None:
    """Draw what nets are compared with: the limit of K lines, and published approximations with their names."""
    limit = _points(record for record in records if _kind(record) == "limit")
    if limit:
        axes.plot(
            *zip(*limit, strict=True), color="#999999", linewidth=3, alpha=0.6, zorder=0, label="limit of K lines"
        )
    published = sorted(
        (error, record.cell.net) for record in records if _kind(record) == "published" and (error := _error(record))
    )
    for error, _ in published:
        axes.axhline(error, color="#555555", linewidth=0.7, linestyle="--", zorder=0)
    low, high = (math.log(end) for end in axes.get_ylim())
    heights = _apart([(math.log(error) - low) / (high - low) for error, _ in published], _LABEL)
    for (error, name), height in zip(published, heights, strict=True):
        axes.annotate(
            name,
            (1.0, error),
            (1.03, height),
            xycoords=("axes fraction", "data"),
            textcoords="axes fraction",
            ha="left",
            va="center",
            fontsize=6,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "#555555", "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False,
        )


def _apart(heights: list[float], least: float) -> list[float]:
    """Return ascending heights, moved so that neighbours are at least `least` apart and none is above 1."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + least) if placed else height)
    top = 1.0
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], top)
        top = placed[index] - least
    return placed


def _panel_domain(records: list[RunRecord]) -> str:
    """Return the inputs that most of the fits were fitted on, since only such fits compare; empty if no fit tells."""
    domains = [fitted_on for record in records if (fitted_on := record.notes.get("fitted_on"))]
    return statistics.mode(domains) if domains else ""


def _points(records: Iterable[RunRecord]) -> list[tuple[float, float]]:
    """Return number of trained values and largest error of each fit that has both, ascending."""
    points = [(record.last(metrics.NET_PARAMETERS.name), _error(record)) for record in records if record.status == "ok"]
    return sorted((x, y) for x, y in points if x and y)


def _kind(record: RunRecord) -> str:
    """Return "limit" for the limit of K lines, "published" for a published approximation, an empty string for a fit."""
    return record.notes.get("kind", "")


def _error(record: RunRecord, quantity: str = "max_error", region: str = "") -> float | None:
    """Return an error on a region of inputs, by default on the fitted ones."""
    return record.last(f"{quantity}/{region or record.notes.get('fitted_on', '')}")


def _ordered(records: list[RunRecord]) -> list[RunRecord]:
    return sorted(records, key=lambda fit: (_kind(fit), fit.cell.net, fit.last(metrics.NET_PARAMETERS.name) or 0))


_COLUMNS = (
    "net",
    "values",
    "FLOP",
    "largest error",
    "RMS",
    "largest relative",
    "ulp",
    "derivative: largest",
    "RMS",
    "largest 1–2×",
    "largest 2–4×",
    "µs",
    "µs folded",
    "µs closed form",
    "s to fit",
)


def _table(name: str, records: list[RunRecord]) -> str:
    head = "".join(f"<th>{word}</th>" for word in _COLUMNS)
    fitted_on = _panel_domain(records)
    title = f"<h3>{escape(name)}{f' <span class=soft>on {escape(fitted_on)}</span>' if fitted_on else ''}</h3>"
    rows = "".join(_row(record, fitted_on) for record in records)
    return f"""{title}<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>"""


def _row(record: RunRecord, fitted_on: str) -> str:
    """Return a fit's row. Its regions are the fitted one, then 1–2× and 2–4× in turn, for one side or both."""
    regions = [m.metric.name.split("/", 1)[1] for m in record.measurements if m.metric.name.startswith("max_error/")]
    outside = [region for region in regions[1:] if region != "observed"]
    inputs = record.notes.get("fitted_on", fitted_on)
    errors = ("max_error", "rms_error", "max_relative_error", "max_ulp_error")
    slopes = ("derivative_max_error", "derivative_rms_error")
    cells = [
        _named(record) + (f" on {inputs}" if inputs != fitted_on else ""),
        _number(record.last(metrics.NET_PARAMETERS.name), "g"),
        _number(record.last(metrics.NET_FLOPS.name), "g"),
        *(_number(_error(record, quantity)) for quantity in (*errors, *slopes)),
        _number(_worst(record, outside[0::2])),
        _number(_worst(record, outside[1::2])),
        *(
            _number(record.last(metric.name), ".3g")
            for metric in (metrics.CALL_TIME, metrics.FOLDED_CALL_TIME, metrics.ANALYTIC_CALL_TIME, metrics.FIT_TIME)
        ),
    ]
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _named(record: RunRecord) -> str:
    """Return the name in a row: the net with its sizes, or what else the row is about, and what went wrong."""
    size = dict(record.spec.get("size") or {})
    if _kind(record) == "limit":
        return f"limit of {size['pieces']} lines"
    widths = [value if isinstance(value, list) else [value] for value in size.values() if value]
    parts = [record.cell.net, *("×".join(map(str, width)) for width in widths if isinstance(width[0], int))]
    remark = _kind(record) or ("" if record.status == "ok" else record.status)
    return " ".join(parts) + (f" ({remark})" if remark else "")


def _worst(record: RunRecord, regions: list[str]) -> float | None:
    """Return the largest error on any of these regions; None where none was measured."""
    errors = [error for region in regions if (error := _error(record, region=region)) is not None]
    return max(errors, default=None)


def _number(value: float | None, form: str = ".2e") -> str:
    return "" if value is None else format(value, form)
