"""The atlas: it is complete, can be resumed, and its page is made from Parquet files alone."""

import re

import pytest

from trans4init.ablations.cli.fit import Fit
from trans4init.ablations.errors import InputError
from trans4init.ablations.fit import atlas
from trans4init.ablations.fit.atlas import entries, make
from trans4init.ablations.functions import get_function, list_functions
from trans4init.ablations.nets import list_nets
from trans4init.reports import atlas as page
from trans4init.reports.atlas import write_atlas
from trans4init.reports.records.store import load_results


def test_every_function_and_net_is_in_the_plan():
    plan = entries()
    fittable = {name for name in list_functions() if get_function(name).fittable()}
    assert {entry.function for entry in plan} == fittable
    assert {entry.net for entry in plan if entry.kind == "net"} == set(list_nets())
    named = {entry.net for entry in plan if entry.kind == "published" and entry.function == "gelu"}
    assert named >= {"gelu-tanh", "i-gelu", "h-gelu", "quadratic-gelu", "puma-gelu", "bolt-gelu"}
    with pytest.raises(InputError, match="t5 can't be fitted"):
        entries("t5")


def test_what_was_made_is_found_and_the_page_shows_it(tmp_path, monkeypatch):
    wanted = {"spline", "rational", "i-gelu", "quadratic-gelu", "limit"}
    plan = [entry for entry in entries("gelu") if entry.net in wanted]
    done = []
    for entry, outcome in make(tmp_path, plan):
        assert outcome == "made"
        done.append(entry)
        if len(done) == 9:
            break  # as Ctrl-C does
    assert {entry.kind for entry in done} == {"net", "published", "limit"}
    monkeypatch.setattr(atlas, "Wanted", lambda *_, **__: pytest.fail("fitted again"), raising=True)
    assert [outcome for _, outcome in make(tmp_path, done)] == ["found"] * 9
    monkeypatch.undo()
    outcomes = [outcome for _, outcome in make(tmp_path, plan)]
    assert outcomes == ["found"] * 9 + ["made"] * (len(plan) - 9)
    records = load_results(tmp_path / "results").records
    assert len(records) == len(plan)
    [quadratic] = [record for record in records if record.cell.net == "quadratic-gelu"]
    assert quadratic.last("max_error/-4..4") == pytest.approx(1.5, rel=1e-3)
    text = write_atlas(tmp_path).read_text()
    assert text.count("<svg") == 1
    assert text.count("<tr>") == 1 + len(plan)
    for word in ("quadratic-gelu (published)", "limit of 8 lines", "i-gelu", "1.50e+00", "spline 16", "rational 5 4"):
        assert word in text


def test_a_fit_on_other_inputs_is_in_the_table_and_not_in_the_figure(tmp_path):
    """Errors on a narrower domain are smaller: they can't be on the same line."""
    plan = [entry for entry in entries("gelu") if entry.net == "spline"][:2]
    assert [outcome for _, outcome in make(tmp_path, plan)] == ["made"] * 2
    before = write_atlas(tmp_path).read_text()
    assert Fit("gelu", net="spline", domain=(-2, 2), out=tmp_path).run("") == 0
    after = write_atlas(tmp_path).read_text()
    figure = re.compile("<svg.*</svg>", re.DOTALL)
    assert figure.findall(after) == figure.findall(before)
    assert "on -2..2</td>" in after


def test_a_fit_that_diverges_is_a_row(tmp_path, monkeypatch):
    def diverging(wanted, **_):
        yield 0, atlas.FitDivergedError("the loss of the fit is nan at step 7")

    monkeypatch.setattr(atlas, "fit_many", diverging)
    plan = [entry for entry in entries("gelu") if entry.net == "rational"][:1]
    assert [outcome for _, outcome in make(tmp_path, plan)] == ["diverged"]
    [record] = load_results(tmp_path / "results").records
    assert (record.status, record.error) == ("diverged", "the loss of the fit is nan at step 7")
    assert "rational 3 2 (diverged)" in write_atlas(tmp_path).read_text()


@pytest.mark.parametrize("name", ["transpose", "softmax-row", "scalable-softmax"])
def test_functions_of_every_kind_of_input_are_in_the_atlas(tmp_path, monkeypatch, name):
    monkeypatch.setattr(atlas, "STEPS", 10)
    plan = [entry for entry in entries(name) if entry.net in ("linear", "deep-set", "spline")]
    assert plan
    assert {outcome for _, outcome in make(tmp_path, plan)} == {"made"}
    assert len(load_results(tmp_path / "results").records) == len(plan)


def test_a_page_is_made_again_without_drawing_what_has_not_changed(tmp_path, monkeypatch):
    drawn = []
    draw = page._draw
    monkeypatch.setattr(page, "_draw", lambda name, *rest: (drawn.append(name), draw(name, *rest))[1])
    for function in ("gelu", "tanh"):
        list(atlas.make(tmp_path, [atlas.Entry(function, "spline", {"intervals": 4})]))
    first = page.write_atlas(tmp_path).read_text()
    assert page.write_atlas(tmp_path).read_text() == first
    assert drawn == ["gelu", "tanh"]
    list(atlas.make(tmp_path, [atlas.Entry("tanh", "spline", {"intervals": 16})]))
    assert page.write_atlas(tmp_path).read_text() != first
    assert drawn == ["gelu", "tanh", "tanh"]
    assert len(list((tmp_path / "figures" / "atlas").iterdir())) == 2
