"""Grids: what a file's lists, cells and parents expand to, what blocks are called, and what is refused."""

import json
from pathlib import Path

import pytest

from trans4init.ablations.errors import InputError
from trans4init.ablations.nets import list_nets, net_class
from trans4init.ablations.study import net_sizes
from trans4init.ablations.study.grid import load_grid, load_study
from trans4init.ablations.study.net_sizes import OPTIONS, nets_of_each_size, options_of
from trans4init.ablations.study.requests import ResolvedStudy
from trans4init.ablations.study.resolving import resolve
from trans4init.ablations.study.spec import shipped_studies
from trans4init.reports.machine import capture
from trans4init.reports.records.schema import CellKey

TEXT = '[[task]]\nsource = "text.txt"\nevaluation_tokens = 64\n\n'
COPY = '[[task]]\nname = "copy"\nlongest = 4\ntested_longest = 5\nevaluation_examples = 5\n\n'
MODEL = "[model]\nlayers = 1\nwidth = 8\nheads = 2\ncontext = 16\n\n"


@pytest.fixture
def grid(tmp_path, write_grid):
    """Writes the grid with pieces of its text replaced; its file."""
    return lambda *changes: str(write_grid(tmp_path, *changes))


def labels(path, **changes):
    return [block.label for block in load_grid(path, **changes).blocks]


def cells(block):
    return [str(cell) for cell in block.spec.cells()]


def refusal(path, **changes):
    with pytest.raises(InputError) as caught:
        load_grid(path, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_is_the_product_of_its_functions_tasks_and_models(grid):
    loaded = load_grid(grid())
    assert [block.label for block in loaded.blocks] == ["gelu · text", "gelu · copy", "silu · text", "silu · copy"]
    assert [(block.spec.function, block.spec.task.name) for block in loaded.blocks] == [
        ("gelu", "text"),
        ("gelu", "copy"),
        ("silu", "text"),
        ("silu", "copy"),
    ]
    assert (loaded.name, loaded.question) == ("grid", "Which of them?")
    for block in loaded.blocks:
        assert cells(block) == [
            "analytic",
            *(f"learned-frozen · {net}" for net in ("piecewise-linear-4", "piecewise-linear-8", "mlp-relu")),
            "none",
        ]
        assert block.spec.net("piecewise-linear-8").size() == {"pieces": 8}
        assert block.spec.net("piecewise-linear-8").name == "piecewise-linear"
        assert block.spec.net("mlp-relu").size() == {"hidden": [8]}


def test_single_tables_and_lists_of_one_are_the_study_that_they_were(grid):
    one = ('function = ["gelu", "silu"]', 'function = "gelu"')
    plain = load_study(grid(one, (COPY, ""), (TEXT, TEXT.replace("[[task]]", "[task]"))))
    listed = load_grid(grid(('"gelu", "silu"', '"gelu"'), (COPY, ""), ("[model]", "[[model]]")))
    [block] = listed.blocks
    assert block.label == ""
    assert block.spec == plain
    with pytest.raises(InputError, match="a study of one block was expected, and this one has 4"):
        load_study(grid())


def test_models_are_called_by_their_size_and_where_these_are_alike_by_what_differs_or_by_their_label(grid):
    other = MODEL.replace("[model]", "[[model]]").replace("width = 8", "width = 16")
    one = (("function = [", "function = ["), ('"gelu", "silu"', '"gelu"'))
    first = MODEL.replace("[model]", "[[model]]")
    assert labels(grid(*one, (MODEL, first + other))) == ["text · 1x8", "text · 1x16", "copy · 1x8", "copy · 1x16"]
    longer = first.replace("context = 16", "context = 32")
    assert labels(grid(*one, (MODEL, first + longer)))[:2] == ["text · 1x8 context 16", "text · 1x8 context 32"]
    named = longer + 'label = "long"\n'
    assert labels(grid(*one, (MODEL, first + named)))[:2] == ["text · 1x8", "text · long"]


def test_tasks_of_one_kind_are_told_apart(grid, tmp_path):
    (tmp_path / "other.txt").write_text("other words " * 100)
    other = '[[task]]\nsource = "other.txt"\nevaluation_tokens = 64\n\n'
    one = ('"gelu", "silu"', '"gelu"')
    assert labels(grid(one, (COPY, other))) == ["text source text.txt", "text source other.txt"]
    assert labels(grid(one, (COPY, other + 'label = "prose"\n'))) == ["text", "prose"]
    below = tmp_path / "below"
    below.mkdir()
    (below / "text.txt").write_text("a text of the same name " * 50)
    same = other.replace("other.txt", "below/text.txt")
    assert labels(grid(one, (COPY, same))) == ["text (1)", "text (2)"]


def test_two_names_of_the_same_data_are_one_block_too_many(grid, tmp_path):
    path = grid(('"gelu", "silu"', '"gelu"'), (COPY, '[[task]]\nsource = "again.txt"\nevaluation_tokens = 64\n\n'))
    (tmp_path / "again.txt").write_text((tmp_path / "text.txt").read_text())
    with pytest.raises(InputError, match=r"text\.txt' and 'text source again\.txt' of grid are the same"):
        resolve(load_grid(path), tmp_path, "again")


def test_a_net_has_several_sizes_where_an_option_has_a_list_too_many():
    def made(**net):
        return [(of.get("label"), *(of[key] for key in net if key != "name")) for of in nets_of_each_size(net, "f")]

    assert made(name="rational", numerator=[3, 5]) == [("rational-3", 3), ("rational-5", 5)]
    assert made(name="mlp-relu", hidden=[8, 16]) == [(None, [8, 16])]
    assert made(name="mlp-relu", hidden=[[8], [16, 16]]) == [("mlp-relu-8", [8]), ("mlp-relu-16x16", [16, 16])]
    assert made(name="deep-set", hidden=[8, 16]) == [("deep-set-8", 8), ("deep-set-16", 16)]
    assert made(name="fourier-mlp", hidden=[[8], [4]], frequencies=[1, 2]) == [
        ("fourier-mlp-8-1", [8], 1),
        ("fourier-mlp-8-2", [8], 2),
        ("fourier-mlp-4-1", [4], 1),
        ("fourier-mlp-4-2", [4], 2),
    ]
    [one, _] = nets_of_each_size({"name": "spline", "label": "s", "intervals": [4, 8]}, "f")
    assert one == {"name": "spline", "label": "s-4", "intervals": 4}
    with pytest.raises(InputError, match=r"f: \[\[nets\]\] pieces of net 'piecewise-linear' has a value twice"):
        made(name="piecewise-linear", pieces=[4, 4])
    with pytest.raises(InputError, match="has no value"):
        made(name="piecewise-linear", pieces=[])


def test_the_options_of_nets_and_which_are_lists_are_those_of_the_nets(monkeypatch):
    """So that a net which isn't in the list, such as one of a user's file, is asked and answers alike."""
    assert set(OPTIONS) == set(list_nets())
    assert {name: set(options) for name, options in OPTIONS.items()} == {
        name: set(net_class(name).Size.model_fields) for name in OPTIONS
    }
    options = {(name, option) for name in OPTIONS for option in OPTIONS[name]}
    known = {pair: net_sizes._is_listed(*pair) for pair in options}
    monkeypatch.setattr(net_sizes, "OPTIONS", {})
    assert all(set(options_of(name)) == set(net_class(name).Size.model_fields) for name in list_nets())
    assert {pair: net_sizes._is_listed(*pair) for pair in options} == known
    assert set(known.values()) == {True, False}
    assert net_sizes._is_listed("no-such-net", "pieces")


CELLS = """
[[cell]]
function = "gelu"
arm = "learned-frozen"
net = "piecewise-linear-8"

[[cell]]
function = "gelu"
arm = "learned-fine-tuned"
net = "mlp-relu"
evaluation.seeds = 2

[[cell]]
function = "silu"
net = "rational"
task = { name = "copy", longest = 4, tested_longest = 5, evaluation_examples = 5 }
training.steps = 12
"""


@pytest.fixture
def with_cells(grid):
    """Writes the grid with cells in place of its functions and its second task; its file."""

    def write(*changes, content=CELLS):
        base = [
            ('function = ["gelu", "silu"]\n', ""),
            (COPY, ""),
            ("steps_per_round = 1\n", f"steps_per_round = 1\n{content}"),
        ]
        return grid(*base, *changes)

    return write


def test_cells_are_the_study_with_what_they_say_and_no_others_are_run(with_cells):
    gelu, silu = load_grid(with_cells()).blocks
    assert (gelu.label, silu.label) == ("gelu · text · steps 6", "silu · copy · steps 12")
    assert cells(gelu) == ["analytic", "learned-frozen · piecewise-linear-8", "learned-fine-tuned · mlp-relu"]
    assert cells(silu) == ["analytic", "learned-frozen · rational", "none"]
    assert (gelu.spec.training.steps, silu.spec.training.steps) == (6, 12)
    assert silu.spec.training.batch == gelu.spec.training.batch == 2
    assert silu.spec.pairs == ()
    assert gelu.spec.public()["pairs"] == [list(pair) for pair in gelu.spec.pairs] != []
    assert json.loads(json.dumps(silu.spec.public())).keys().isdisjoint({"pairs"})


def test_cells_of_all_pairs_are_the_block_without_cells(with_cells, grid):
    """The order in which a file says the same makes no other study: its runs have the same ids."""
    four = "".join(
        f'\n[[cell]]\nfunction = "gelu"\narm = "{arm}"\nnet = "{net}"\n'
        for arm in ("learned-frozen", "learned-fine-tuned")
        for net in ("piecewise-linear-4", "mlp-relu")
    )
    [block] = load_grid(with_cells(content=four)).blocks
    assert block.label == ""
    assert block.spec.pairs == ()
    assert len(block.spec.cells()) == 5
    fewer = load_grid(grid()).blocks[0]
    ids = [
        {
            ResolvedStudy(of.spec, "f", capture(), Path(), "").evaluate_request(cell, 0, None, {}).run_id
            for cell in shared
        }
        for of in (block, fewer)
        for shared in [[CellKey("gelu", "analytic"), CellKey("gelu", "learned-frozen", "mlp-relu")]]
    ]
    assert ids[0] == ids[1]


def test_what_the_command_line_changes_holds_in_every_block(grid, with_cells):
    changed = load_grid(with_cells(), seeds=5, function="tanh")
    assert {(block.spec.evaluation.seeds, block.spec.function) for block in changed.blocks} == {(5, "tanh")}
    assert (changed.name, {block.spec.name for block in changed.blocks}) == ("grid-tanh", {"grid-tanh"})
    assert labels(grid(), function="silu") == ["text", "copy"]
    assert load_grid(grid(), function="silu").name == "grid-silu"
    one = load_grid(grid((COPY, "")), data=Path("python-stdlib"))
    assert {(block.spec.name, block.spec.task.source) for block in one.blocks} == {
        ("grid-python-stdlib", "python-stdlib")
    }
    assert refusal(grid(), data=Path("python-stdlib")).endswith(
        "--data is for a study of one task, and this one has several."
    )


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('["gelu", "silu"]', "[]", "grid.toml: function: at least one was expected, and an empty list was given."),
        ('["gelu", "silu"]', '["gelu", "gelu"]', "grid.toml: the same function, task and model are listed twice"),
        ("longest = 4", "longst = 4", "grid.toml, task 2 of 2: [task] unknown key 'longst'; did you mean 'longest'?"),
        ("evaluation_tokens = 64", 'label = ""', "grid.toml: [task] label: a word was expected, and '' was given."),
        ("arms = [", "cells = 3\narms = [", "grid.toml: unknown key 'cells'; did you mean 'cell'?"),
        ("arms = [", "extend = 3\narms = [", "grid.toml: unknown key 'extend'; did you mean 'extends'?"),
        ("[fit]", '[[nets]]\nname = "mlp-relu"\nhidden = [4]\n[fit]', "a net is named twice in [[nets]]; give one of"),
        ("[training]\n", "[training]\nstep = 3\n", "grid.toml: [training] unknown key 'step'"),
    ],
)
def test_mistakes_in_a_grid_are_named(grid, old, new, sentence):
    assert sentence in refusal(grid((old, new)))


def test_nets_of_one_kind_are_told_apart_by_a_label(grid):
    [block, *_] = load_grid(grid(("pieces = [4, 8]", 'pieces = [4, 8]\nlabel = "few"'))).blocks
    assert block.spec.net_names() == ("few-4", "few-8", "mlp-relu")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "training.steps = 12",
            "training.step = 12",
            "[[cell]] 3: [training] unknown key 'step'; did you mean 'steps'?",
        ),
        ('arm = "learned-frozen"', 'arm = "learned-frosen"', "unknown arm 'learned-frosen'; did you mean 'learned-fr"),
        ('net = "rational"', "net = 3", "[[cell]] 3: net: the name of a net or a table was expected, and 3 was given."),
        (
            "evaluation.seeds = 2",
            "evaluation.seeds = 3",
            "[[cell]] 1 and 2 train alike and so are one block, but differ in",
        ),
        ('function = "silu"', 'functoin = "silu"', "[[cell]] 3: unknown key 'functoin'; did you mean 'function'?"),
        ('function = "silu"', 'name = "other"', "[[cell]] 3: name: the cells of a study share it; set it above all of"),
        ('net = "mlp-relu"', 'net = { name = "mlp-relu", label = "piecewise-linear-8" }', "has two sizes in one block"),
    ],
)
def test_mistakes_in_a_cell_are_named(with_cells, old, new, sentence):
    assert sentence in refusal(with_cells(content=CELLS.replace(old, new, 1)))


def test_a_mistake_in_the_study_below_cells_is_not_said_to_be_a_cells(with_cells):
    path = with_cells(
        ("batch = 2", "btach = 2"), ("steps = 6", "steps = 6\nfoo = 1"), content="\n[[cell]]\nfit.steps = 3\n"
    )
    assert refusal(path).startswith(f"{path}: [")
    assert "[[cell]] 1" not in refusal(path)
    path = with_cells(content="\n[cell]\narm = 'none'\n")
    assert "cell: tables were expected, each headed [[cell]]" in refusal(path)


CHILD = """
extends = "grid.toml"
name = "child"
function = "silu"

[training]
steps = 9

[[nets]]
name = "rational"
"""


def test_a_study_extends_another_one_key_by_key(grid, tmp_path):
    grid()
    (tmp_path / "child.toml").write_text(CHILD)
    child = load_grid(str(tmp_path / "child.toml"))
    assert child.name == "child"
    assert [block.label for block in child.blocks] == ["text", "copy"]
    text = child.blocks[0].spec
    assert (text.function, text.training.steps, text.training.batch) == ("silu", 9, 2)  # tables are merged
    assert text.net_names() == ("rational",)  # lists are replaced
    assert text.question == "Which of them?"


def test_a_task_of_another_name_takes_nothing_over(grid, tmp_path):
    """The settings of one task are no settings of another; those of the same one are merged."""
    grid((COPY, ""), ("[[task]]", "[task]"))
    other = '\n[task]\nname = "copy"\nlongest = 4\ntested_longest = 5\n'
    (tmp_path / "child.toml").write_text(CHILD + other)
    assert load_study(str(tmp_path / "child.toml")).task.longest == 4
    for more in ('\n[task]\nunit = "character"\n', '\n[task]\nname = "text"\nunit = "character"\n'):
        (tmp_path / "child.toml").write_text(CHILD + more)
        task = load_study(str(tmp_path / "child.toml")).task
        assert (task.unit, task.evaluation_tokens, Path(task.source).name) == ("character", 64, "text.txt")


def test_a_study_in_another_folder_finds_its_parents_text(grid, tmp_path):
    grid()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "child.toml").write_text(CHILD.replace('"grid.toml"', '"../grid.toml"'))
    text = load_grid(str(tmp_path / "below" / "child.toml")).blocks[0].spec
    assert text.task.source == str(tmp_path / "text.txt")


def test_a_shipped_study_can_be_extended_by_its_name(tmp_path):
    for name in shipped_studies():
        path = tmp_path / "child.toml"
        path.write_text(f'extends = "{name}"\nname = "child"\n')
        parent, child = load_grid(name), load_grid(str(path))
        renamed = [block.spec.model_copy(update={"name": "child"}) for block in parent.blocks]
        assert [block.spec for block in child.blocks] == renamed


def test_an_error_budget_may_be_asked_for_several_functions(tmp_path):
    (tmp_path / "child.toml").write_text('extends = "error-budget"\nname = "child"\nfunction = ["gelu", "silu"]\n')
    assert labels(str(tmp_path / "child.toml")) == ["gelu", "silu"]
    assert {len(block.spec.cells()) for block in load_grid(str(tmp_path / "child.toml")).blocks} == {9}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('extends = "child.toml"\n', "extends: child.toml, which extends child.toml: no file may extend itself."),
        ('extends = "../above/nowhere.toml"\n', "extends: there is no study file '../above/nowhere.toml'."),
        ('extends = "childs.toml"\n', "extends: there is no study file 'childs.toml'; did you mean 'child.toml'?"),
        ('extends = "first-lok"\n', "extends: unknown study 'first-lok'; did you mean 'first-look'?"),
        ("extends = 3\n", "extends: a study's name or path was expected, and 3 was given."),
        ('extends = "first-look"\n', "key 'name' is missing"),
    ],
)
def test_a_parent_that_is_not_there_or_oneself_is_refused(tmp_path, content, sentence):
    (tmp_path / "child.toml").write_text(content)
    said = refusal(str(tmp_path / "child.toml"))
    assert sentence in said
    assert "child.toml" in said


def test_a_circle_of_files_is_refused(tmp_path):
    for name, other in (("a", "b"), ("b", "c"), ("c", "b")):
        (tmp_path / f"{name}.toml").write_text(f'extends = "{other}.toml"\n')
    said = refusal(str(tmp_path / "a.toml"))
    assert "c.toml: extends: b.toml, which extends c.toml, which extends b.toml: no file may extend itself." in said


def test_a_study_of_one_block_has_the_ids_that_it_had_before_there_were_grids(tiny_study):
    """They were written down then: results from before stay valid."""
    study = ResolvedStudy(load_study(str(tiny_study())), "f", capture(), Path(), "")
    assert study.spec_hash == "ce37b3c69139"
    assert study.fit_request("fourier-mlp").run_id == "fit-1d66ed1f21dd7e4d"
    assert study.tune_requests()[-1].run_id == "tune-bf80f9cd15499872"
    assert study.throughput_requests()[-1].run_id == "throughput-302b8b9f50b1ce82"
    assert (study.card().block, study.card().together, study.card().dropped) == ("", None, ())
    assert study.spec.public().keys().isdisjoint({"pairs", "label"})
    assert study.spec.public()["nets"] == [{"name": "fourier-mlp", "hidden": [8], "frequencies": 4}]
