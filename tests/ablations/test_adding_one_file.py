"""A new arm, net, function or task is one class in one file: no other file knows of it."""

import shutil

import pytest
import torch

from trans4init.ablations.arms import apply_arm
from trans4init.ablations.errors import InputError
from trans4init.ablations.fit import fit, load_fitted
from trans4init.ablations.slots.arms import get_arm
from trans4init.ablations.study.grid import load_study
from trans4init.ablations.transformer import Transformer, TransformerConfig
from trans4init.reports.records.store import load_results

ARM = """
from trans4init.ablations.slots.arms import ARMS, Arm
from trans4init.ablations.slots.contents import Content


class Half(Content):
    def value(self, inputs):
        return self.function.analytic(inputs, **self.shape) / 2


@ARMS.register
class Halved(Arm):
    name = "halved"
    holds, moves = "half of the closed form", "not a thing"
    colour, symbol = "#12AB56", "hexagon"

    def applies_to(self, function):
        return function.closed_form and function.slot == "activation"

    def content(self, slot, net, seed, path):
        return slot.fold(Half(slot.function, slot.shape))
"""
NET = """
import torch
from torch import nn

from trans4init.ablations.nets.base import NETS, Net, NetSize


class Degree(NetSize):
    degree: int = 3


@NETS.register
class Polynomial(Net):
    name = "polynomial"
    source = "Taylor 1715"
    Size = Degree

    def __init__(self, domain, outputs, size):
        super().__init__(domain, outputs, size)
        self.coefficients = nn.Parameter(torch.empty(size.degree + 1, outputs))

    def powers(self, inputs):
        return self.domain.coordinate(inputs)[..., None] ** torch.arange(self.size.degree + 1)

    def forward(self, inputs):
        return self.powers(inputs) @ self.coefficients.to(inputs.dtype)

    @torch.no_grad()
    def initialise(self, generator):
        self.coefficients.normal_(generator=generator)

    @torch.no_grad()
    def zero_output(self):
        self.coefficients.zero_()

    @torch.no_grad()
    def solve_output(self, inputs, targets):
        self.coefficients.copy_(torch.linalg.lstsq(self.powers(inputs.double()), targets.double()).solution)

    def flops(self):
        return 2 * self.coefficients.numel()
"""
FUNCTION = """
from trans4init.ablations.functions.activation import Activation
from trans4init.ablations.functions.base import FUNCTIONS


@FUNCTIONS.register
class Bump(Activation):
    name = "bump"
    source = "nobody"

    def analytic(self, inputs, **shape):
        return inputs - inputs**3 / 48
"""
TASK = """
import torch

from trans4init.ablations.data.config import TaskConfig
from trans4init.ablations.seeding import keyed_generator
from trans4init.ablations.tasks.base import TASKS, Batch, Task, evaluating
from trans4init.reports.records.metrics import VALIDATION_LOSS
from trans4init.reports.records.schema import Measurement


class EchoConfig(TaskConfig):
    letters: int = 5

    @property
    def metrics(self):
        return (VALIDATION_LOSS,)

    def __str__(self):
        return f"echo of {self.letters} letters"


@TASKS.register
class Echo(Task):
    name = "echo"
    Config = EchoConfig
    judged = VALIDATION_LOSS

    def __init__(self, config, context, device, kind="decoder"):
        self.check_kind(config, kind)
        self.config, self.context, self.device = config, context, device
        self.fingerprint = config.fingerprint()

    @property
    def model_fields(self):
        return {"vocabulary": self.config.letters}

    def plan(self, seed, size, split, unit):
        generator = keyed_generator(seed, split)
        while True:
            yield torch.randint(self.config.letters, (size, self.context), generator=generator)

    def collate(self, key):
        return Batch(key, key)

    def evaluate(self, model, split, step, *, final):
        batch = self.collate(next(self.plan(-1, 16, split, "examples"))).to(self.device)
        with evaluating(model):
            return [Measurement(VALIDATION_LOSS, self.loss(model, batch).item(), step)]
"""
STUDY = """
name = "own"
question = "Is half of it enough?"
function = "own/function.py:bump"
arms = ["analytic", "learned-frozen", "own/arm.py:halved"]

[[nets]]
name = "own/net.py:polynomial"
degree = 2

[fit]
steps = 20

[task]
name = "own/task.py:echo"
letters = 4

[model]
layers = 1
width = 8
heads = 2
context = 8

[training]
steps = 4
batch = 2
learning_rate = 1e-2
evaluations = 2

[evaluation]
seeds = 1
margin = 0.05

[throughput]
rounds = 2
steps_per_round = 1
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with a file for each, the same for all tests: a process registers a name once."""
    folder = tmp_path_factory.mktemp("files") / "own"
    folder.mkdir()
    for name, source in (("arm", ARM), ("net", NET), ("function", FUNCTION), ("task", TASK)):
        (folder / f"{name}.py").write_text(source)
    return folder


@pytest.fixture
def study(own, monkeypatch):
    """Writes the study beside that folder, with a piece of it replaced, and makes its folder the current one."""
    monkeypatch.chdir(own.parent)

    def write(old="", new=""):
        assert old in STUDY
        (own.parent / "own.toml").write_text(STUDY.replace(old, new) if old else STUDY)
        return "own.toml"

    return write


def test_a_net_in_a_file_is_fitted_to_a_function_in_a_file(own, tmp_path):
    fitted = fit(f"{own}/function.py:bump", f"{own}/net.py:polynomial", steps=5)
    assert fitted.fidelity.regions[0].max_error < 1e-5  # a cubic fits a cubic
    assert load_fitted(fitted.save(tmp_path / "kept")).net.located == f"{own}/net.py:polynomial"


def test_an_arm_in_a_file_is_put_into_a_model(own):
    model = Transformer(TransformerConfig(layers=1, width=8, heads=2, context=8, vocabulary=11, activation="gelu"))
    inputs, before = torch.linspace(-3, 3, 7), model.blocks[0].feed_forward.activation(torch.linspace(-3, 3, 7))
    record = apply_arm(model, "activation", f"{own}/arm.py:halved")
    assert (record.arm, record.moves) == (f"{own}/arm.py:halved", ())
    torch.testing.assert_close(model.blocks[0].feed_forward.activation(inputs), before / 2)
    with pytest.raises(InputError, match=r"halved' makes no sense for sinusoidal; its arms are: analytic, learned"):
        apply_arm(model, "position", f"{own}/arm.py:halved")


def test_a_study_of_files_alone_runs_to_a_report_in_the_arm_s_words(own, study, tmp_path, command):
    study()
    shutil.copytree(own, tmp_path / "own")
    shutil.copy(own.parent / "own.toml", tmp_path)
    process = command("run", "own.toml")
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    records = load_results(tmp_path / "runs" / "own" / "results").records
    assert {record.status for record in records} == {"ok"}
    assert {record.task for record in records} == {"own/task.py:echo"}
    assert {record.cell.arm for record in records if record.phase == "evaluate"} == {
        "analytic",
        "learned-frozen",
        "own/arm.py:halved",
    }
    page = (tmp_path / "runs" / "own" / "report.html").read_text()
    for words in ("half of the closed form", "not a thing", "#12AB56", "hexagon", "echo of 4 letters"):
        assert words in page
    assert "own/arm.py:halved" in (tmp_path / "runs" / "own" / "report.md").read_text()
    assert "#12ab56" in (tmp_path / "runs" / "own" / "report.svg").read_text()


def test_what_is_listed_is_what_the_package_has(own, run_command):
    for kind, name in (("arms", "learned-frozen"), ("nets", "mlp-relu"), ("functions", "gelu"), ("tasks", "text")):
        code, output = run_command("ls", kind)
        assert code == 0, output
        assert name in output
        assert not any(word in output for word in ("halved", "polynomial", "bump", "echo"))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("arm.py:halved", "arm.py:halfed", "arms: unknown arm 'halfed'; did you mean 'halved'?"),
        ("arm.py:halved", "arms.py:halved", "arms: there is no file"),
        ("task.py:echo", "task.py:ecko", "unknown task 'ecko'; did you mean 'echo'?"),
        ("letters = 4", "leters = 4", "unknown key 'leters'; did you mean 'letters'?"),
        ('"own/task.py:echo"', '"xyzzy"', "unknown task 'xyzzy'; there are: FILE.py:NAME, addition, "),
    ],
)
def test_a_wrong_word_is_named_with_the_right_one(study, old, new, sentence):
    with pytest.raises(InputError) as caught:
        load_study(study(old, new))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [('"#12AB56"', '"green"', "has colour 'green'; write #RRGGBB"), ('"hexagon"', '"cat"', "has symbol 'cat'")],
)
def test_an_arm_that_can_not_be_drawn_is_refused_before_anything_runs(own, study, old, new, sentence):
    word = new.strip('"')
    (own / f"{word}.py").write_text(ARM.replace(old, new).replace('"halved"', f'"halved-{word}"'))
    with pytest.raises(InputError, match=sentence):
        load_study(study("arm.py:halved", f"{word}.py:halved-{word}"))


def test_a_function_that_lists_arms_is_told_where_they_are_listed(own):
    (own / "listing.py").write_text(FUNCTION.replace('"bump"', '"listing"') + '    arms = ("analytic",)\n')
    with pytest.raises(InputError, match="it is the arms that say which functions they apply to"):
        fit(f"{own}/listing.py:listing", "spline")


def test_descriptions_are_the_arms():
    description = get_arm("learned-fine-tuned").description()
    assert (description.name, description.colour, description.symbol) == ("learned-fine-tuned", "#D55E00", "diamond")
    assert (description.holds, description.moves) == ("the same fitted net", "the net with the model")
    assert (description.uses_net, description.needs_fit) == (True, True)
