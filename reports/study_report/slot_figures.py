"""Draw what training made of a study's slots, from the files that its evaluation runs kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from trans4init.reports.drawing import as_svg, drawing_style
from trans4init.reports.records.kept_slots import KeptSlots, UnreadableSlotsError, read_kept
from trans4init.reports.records.roles import role
from trans4init.reports.study_report.summary import CellSummary, Summary

__all__ = ["SlotDrawing", "draw_slots"]

_CONTROLS = ("scaled", "gained", "linear")
"""The controls that are drawn, besides the arms that the study asks about: what they trained can be looked at."""
_FAINT = 0.1
"""Dimensions of the closed form have no gain where its RMS is below this share of the largest dimension's: a net's own
deviations, of one size in all dimensions, would look like large gains there."""
_BOLD, _THIN = 1.6, 0.5
"""The widths of the lines of the mean over seeds and of single seeds, in points."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SlotDrawing:
    """Holds the figure of a study's slots, and what the report says of it."""

    svg: str | None
    """None where no run of these arms kept its slots."""
    caption: str = ""
    unreadable: tuple[str, ...] = ()
    """Sentences about files that are damaged."""


@dataclass(frozen=True)
class _Panel:
    """Holds one cell's slots over its seeds: values [seeds, N, outputs] by the slot's path."""

    label: str
    colour: str
    header: dict[str, object]
    inputs: Array
    closed: Array
    values: dict[str, Array]


def draw_slots(summary: Summary, folder: Path) -> SlotDrawing:
    """Return an SVG with a row for each arm that the study asks about, and for controls that change the closed form.

    folder: the study's. The mean over the seeds is a bold line, each seed a thin one; each slot of the model has its
    own. Of a function with several values for an input the figure has the gain of each, which is the least-squares
    factor on the closed form, and the RMS difference from the closed form at each input; of a function with one value
    its curve, and the difference.
    """
    unreadable: list[str] = []
    panels = [panel for cell in _drawn(summary) if (panel := _panel(summary, cell, folder, unreadable)) is not None]
    if not panels:
        return SlotDrawing(None, unreadable=tuple(unreadable))
    several = panels[0].closed.shape[1] > 1
    with drawing_style(9.5):
        figure = Figure(figsize=(8.4, 0.7 + 1.5 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 2, sharex="col", sharey="col", squeeze=False)
        for row, panel in zip(axes, panels, strict=True):
            draw = _draw_rows if several else _draw_curve
            draw(row[0], row[1], panel)
            row[0].set_title(panel.label, loc="left", fontsize=9.5)
        _name_axes(axes, panels[0], several=several)
        svg = as_svg(figure)
    return SlotDrawing(svg, _caption(panels, several=several), tuple(unreadable))


def _drawn(summary: Summary) -> list[CellSummary]:
    card = summary.card
    if card is None:
        return []
    return [
        cell
        for cell in summary.cells
        if cell.cell.function == card.reference.function
        and (role(card, cell.cell) == "question" or cell.cell.arm in _CONTROLS)
    ]


def _panel(summary: Summary, cell: CellSummary, folder: Path, unreadable: list[str]) -> _Panel | None:
    """Gather what the cell's runs kept; None where there is nothing to draw."""
    assert summary.card is not None
    kept: list[KeptSlots] = []
    for run_id in cell.run_ids:
        try:
            slots = read_kept(folder, run_id)
        except UnreadableSlotsError as error:
            unreadable.append(str(error))
            continue
        if slots is not None and slots.inputs is not None and slots.closed is not None:
            kept.append(slots)
    if not kept:
        return None
    first = kept[0]
    assert first.inputs is not None
    assert first.closed is not None
    return _Panel(
        cell.label,
        summary.card.arm(cell.cell.arm).colour,
        dict(first.header),
        first.inputs.astype(float),
        first.closed.astype(float),
        {path: np.stack([slots.values[path] for slots in kept]).astype(float) for path in first.values},
    )


def _draw_rows(left: Axes, right: Axes, panel: _Panel) -> None:
    """Draw the gain of each of a row's values, and the RMS difference from the closed form at each input."""
    power = np.square(panel.closed).sum(axis=0)  # [outputs]
    clear = np.flatnonzero(power > _FAINT**2 * power.max())
    left.axhline(1, color="#999999", linewidth=1)
    for values in panel.values.values():
        gains = (values * panel.closed).sum(axis=1)[:, clear] / power[clear]
        _draw_seeds(left, clear, gains, panel.colour)
        off = np.sqrt(np.square(values - panel.closed).mean(axis=2))
        _draw_seeds(right, panel.inputs, off, panel.colour)


def _draw_curve(left: Axes, right: Axes, panel: _Panel) -> None:
    """Draw the function's curve beside the closed form's, and their difference."""
    closed = panel.closed[:, 0]
    right.axhline(0, color="#999999", linewidth=1)
    for values in panel.values.values():
        _draw_seeds(left, panel.inputs, values[:, :, 0], panel.colour)
        _draw_seeds(right, panel.inputs, values[:, :, 0] - closed, panel.colour)
    left.plot(panel.inputs, closed, color="black", linewidth=1, linestyle="dashed")
    if panel.header.get("log_inputs"):
        left.set_xscale("log")
        right.set_xscale("log")
    if panel.header.get("log_values"):
        left.set_yscale("log", nonpositive="mask")


def _draw_seeds(axes: Axes, x: Array | NDArray[np.int_], seeds: Array, colour: str) -> None:
    """Draw a line for each seed [seeds, N] and one for their mean."""
    for seed in seeds:
        axes.plot(x, seed, color=colour, linewidth=_THIN, alpha=0.4)
    axes.plot(x, seeds.mean(axis=0), color=colour, linewidth=_BOLD)


def _name_axes(axes: NDArray[np.object_], panel: _Panel, *, several: bool) -> None:
    positions = panel.header.get("integer") and panel.header.get("slot") == "position"
    inputs = "position or distance" if positions else "input"
    axes[-1][0].set_xlabel("dimension or head" if several else inputs)
    axes[-1][1].set_xlabel(inputs)
    for left, right in axes:
        left.set_ylabel("gain" if several else "value")
        right.set_ylabel("RMS difference" if several else "difference")


def _caption(panels: Sequence[_Panel], *, several: bool) -> str:
    """Say what the lines are, and of how many seeds."""
    seeds = sorted({len(values) for panel in panels for values in panel.values.values()})
    slots = len(panels[0].values)
    counted = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    lines = f"Bold: the mean over {counted} seed{'s' if seeds[-1] > 1 else ''}; thin: each of them"
    lines += f"; each of the model's {slots} slots has its own lines." if slots > 1 else "."
    if several:
        return (
            f"{lines} Left: the least-squares factor on each dimension of the closed form, without dimensions below a "
            f"tenth of the largest; right: the RMS difference from the closed form."
        )
    return f"{lines} Left: the curve, with the closed form dashed; right: the difference from the closed form."
