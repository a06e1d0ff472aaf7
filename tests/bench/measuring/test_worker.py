"""A case is measured in a process of its own, whatever an implementation does to it."""

import os
import sys
from pathlib import Path

import pytest
import torch

from trans4init.bench.measuring import rounds as measuring
from trans4init.bench.measuring.allocations import allocations
from trans4init.bench.measuring.rounds import Plan
from trans4init.bench.measuring.worker import load_suite, measure_case
from trans4init.bench.suite import Case, Suite

PLAN = Plan(rounds=3, sample_seconds=0.001, limit_seconds=20)
PATIENT = Plan(rounds=3, sample_seconds=0.001, limit_seconds=100)


@pytest.fixture
def measured(suite_file, trouble):
    file = suite_file(trouble)
    suite = load_suite(file)
    case = suite.cases(quick=True)[0]
    return measure_case(file, suite, case, [way.name for way in suite.implementations(case)], PLAN)


def test_what_goes_wrong_is_that_ones_alone_and_the_others_go_on(measured):
    allocator = measured.timings.pop("hungry on the processor")
    assert allocator.status == "oom"
    assert "can't allocate memory" in allocator.error
    ends = {name: (timing.status, timing.error.strip().splitlines()[-1:]) for name, timing in measured.timings.items()}
    assert ends == {
        "times": ("ok", []),
        "plus": ("ok", []),
        "wrong": ("failed", ["wrong result, so no time: it is not twice the input"]),
        "absent": ("missing", ["needs a GPU"]),
        "raising": ("failed", ["RuntimeError: no such luck"]),
        "hungry": ("oom", ["all 3 GiB are gone"]),
        "dying": ("failed", ["its process ended with code 7"]),
        "hanging": ("failed", ["it hung: no message for 20 s"]),
    }
    for name in ("times", "plus"):
        timing = measured.timings[name]
        assert sorted(timing.samples) == [0, 1, 2]
        assert 0 < max(timing.samples.values()) < 1
        assert timing.first_call > 0
        assert timing.peak_bytes == pytest.approx(8 * 1000, abs=100)
    assert not any(measured.timings[name].samples for name in ("wrong", "absent", "raising", "hungry"))
    assert sorted(measured.rounds) == [0, 1, 2]


SCRATCH = """

import os
from trans4init.bench.suite import scratch_folder


@SUITE.implementation("leaving files")
def leaving(inputs):
    folder = scratch_folder()
    (folder / "large").write_text("much")
    print(folder, file=open(__file__ + ".folders", "a"))
    return lambda: os._exit(3)
"""


def test_what_a_case_wrote_is_gone_however_its_process_ended(suite_file):
    file = suite_file(SCRATCH)
    suite = load_suite(file)
    measure_case(file, suite, suite.cases(quick=True)[0], ["plus", "leaving files"], PLAN)
    [folder] = Path(f"{file}.folders").read_text().splitlines()
    assert not Path(folder).exists()


def test_the_baseline_is_first_and_only_the_named_are_measured(suite_file):
    file = suite_file()
    suite = load_suite(file)
    case = suite.cases(quick=True)[0]
    assert [way.name for way in suite.implementations(case)] == ["times", "plus"]
    assert list(measure_case(file, suite, case, ["plus"], PLAN).timings) == ["plus"]


def test_the_most_that_is_held_at_once_is_counted_and_not_what_was_there():
    inputs = torch.ones(2**18)  # 1 MiB
    with allocations() as counted:
        first = inputs + 1
        second = first * 2
        del first
        kept = second + 3
        del second
    assert counted.peak == pytest.approx(2 * 2**20, abs=100)
    assert counted.kept == pytest.approx(kept.nbytes, abs=100)


GRAPH = """

CASES.append(Case("backward", shape={"length": 2**18}, quick=True, counts_prepared=True))


@SUITE.implementation("graph", operators=("backward",))
def graph(inputs):
    leaf = (inputs + 1.0).requires_grad_()  # 1 MiB
    out = leaf.sqrt().sum()  # saves the square root for the backward pass: 1 MiB
    return lambda: torch.autograd.grad(out, leaf, retain_graph=True)[0].mul(0).long() + 2 * inputs
"""


def test_what_a_backward_pass_keeps_of_the_forward_counts_where_that_is_the_operator(suite_file):
    peak_bytes = {}
    for counted in (True, False):
        file = suite_file(GRAPH.replace("counts_prepared=True", f"counts_prepared={counted}"))
        suite = load_suite(file)
        case = next(case for case in suite.cases(quick=True) if case.operator == "backward")
        timing = measure_case(file, suite, case, ["graph"], PATIENT).timings["graph"]
        assert timing.status == "ok", timing.error
        peak_bytes[counted] = timing.peak_bytes
    assert peak_bytes[True] - peak_bytes[False] == pytest.approx(2 * 2**20, abs=1000)


def cold_suite(calls, results):
    """Make a suite of cold implementations that note their calls; `results` are also the complaints about them."""
    suite = Suite("commands", list, lambda case: None, lambda _, name, result: result, baseline="first")
    for name, result in results.items():

        def prepare(_, name=name, result=result):
            return lambda: calls.append(name) or result

        suite.implementation(name)(prepare)
    return suite


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_call_that_is_a_process_is_checked_and_timed_at_once(rounds):
    calls, messages = [], []
    suite = cold_suite(calls, {"first": "", "second": "", "wrong": "it is another"})
    names = ["first", "second", "wrong"]
    measuring.check_and_time(suite, Case("run", cold=True), names, Plan(rounds=rounds), messages.append)
    assert [message for message in messages if isinstance(message, measuring.Sample)]
    assert sorted(calls) == sorted(["first", "second"] * rounds + ["wrong"])
    samples = [message for message in messages if isinstance(message, measuring.Sample)]
    assert sorted((sample.implementation, sample.round) for sample in samples) == [
        (name, number) for name in ("first", "second") for number in range(rounds)
    ]
    assert [m.round for m in messages if isinstance(m, measuring.Round)] == list(range(rounds))
    [failed] = [message for message in messages if isinstance(message, measuring.Failed)]
    assert (failed.implementation, failed.error) == ("wrong", "wrong result, so no time: it is another")


def test_a_call_that_is_wrong_in_a_later_round_has_no_time():
    results, messages = iter(["", "", "it stopped half way"]), []
    suite = Suite("commands", list, lambda case: None, lambda _, name, result: result, baseline="failing")
    suite.implementation("failing")(lambda _: lambda: next(results))
    measuring.check_and_time(suite, Case("run", cold=True), ["failing"], Plan(rounds=5), messages.append)
    [failed] = [message for message in messages if isinstance(message, measuring.Failed)]
    assert failed.error == "wrong result, so no time: it stopped half way"


def test_the_order_of_commands_is_drawn_from_the_first_round_on():
    calls, messages = [], []
    suite = cold_suite(calls, dict.fromkeys("abcdefgh", ""))
    measuring.check_and_time(suite, Case("run", cold=True), "abcdefgh", Plan(rounds=1), messages.append)
    assert sorted(calls) == list("abcdefgh") != calls


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system has no /proc")
def test_what_an_implementation_started_ends_with_it_also_where_it_crashed(suite_file):
    file = suite_file(LEAVING)
    suite = load_suite(file)
    measured = measure_case(file, suite, suite.cases(quick=True)[0], ["leaving", "plus"], PLAN)
    assert (measured.timings["leaving"].status, measured.timings["plus"].status) == ("failed", "ok")
    state = Path(f"/proc/{Path(f'{file}.started').read_text()}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"  # ended, perhaps not yet waited for


LEAVING = """

import subprocess


@SUITE.implementation("leaving")
def leaving(inputs):
    child = subprocess.Popen(["sleep", "600"])
    with open(__file__ + ".started", "w") as file:
        file.write(str(child.pid))
    os._exit(3)
"""


def test_a_case_says_how_many_rounds_are_worth_their_time(suite_file):
    file = suite_file()
    file.write_text(file.read_text().replace("quick=True)", "quick=True, rounds=2)"))
    suite = load_suite(file)
    measured = measure_case(file, suite, suite.cases(quick=True)[0], ["plus"], PLAN)
    assert sorted(measured.timings["plus"].samples) == [0, 1]


@pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="workers are not forked there")
def test_workers_are_forked_from_a_process_that_has_imported_torch(suite_file):
    file = suite_file(NOTING)
    suite = load_suite(file)
    case = suite.cases(quick=True)[0]
    for _ in range(2):
        assert measure_case(file, suite, case, ["noting"], PLAN).timings["noting"].status == "ok"
    first, second = (line.split() for line in Path(f"{file}.processes").read_text().splitlines())
    assert first[0] != second[0]
    assert first[1] == second[1] != str(os.getpid())
    assert first[2] == second[2] == "True"


NOTING = """

import importlib.util
import sys

# Whether the worker had imported it before this file.
PRELOADED = ["torch._dynamo" in sys.modules]


@SUITE.implementation("noting")
def noting(inputs):
    with open(__file__ + ".processes", "a") as file:
        print(os.getpid(), os.getppid(), *PRELOADED, file=file)
    return lambda: inputs * 2
"""
