"""The README: every command and snippet in it is run, and its numbers come from published results."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trans4init.ablations.slots.arms import get_arm, list_arms
from trans4init.reports.documents.fill import DOCUMENTS, filled

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("", *(f"ablations/{room}" for room in ("fit", "functions", "study", "training", "transformer")))
READMES = [*(ROOT / folder / "README.md" for folder in FOLDERS), *sorted((ROOT / "kernels").glob("*/README.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FEW = ["--steps", "8", "--set", "training.evaluations=2", "training.warmup_steps=2"]
LONG = {
    "trans4init run first-look --data my.txt": ["--seeds", "1", "--trials", "1"],
    "trans4init run error-budget --function gelu": ["--seeds", "1"],
    "trans4init train translation": [*FEW, "task.numbers=300", "task.held_out=20"],
    "trans4init train text --data my.txt": FEW,
}
"""Commands that take minutes: run with a smaller budget, otherwise as they stand."""


def blocks(readme: Path, language: str) -> list[str]:
    """The code blocks of that language in a README, in their order."""
    text = readme.read_text(encoding="utf-8")
    return [
        block for name, block in re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if name == language
    ]


def commands(readme: Path) -> list[str]:
    """Every line of the shell blocks."""
    return [line for block in blocks(readme, "sh") for line in block.splitlines()]


def named(readme: Path) -> str:
    return str(readme.relative_to(ROOT))


NOX_COMMANDS = [line for line in commands(ROOT / "README.md") if line.startswith("pip install nox && nox -s ")]


def test_every_readme_with_commands_is_run():
    """A README that shows a command or a snippet is among those that the tests below run."""
    tracked = subprocess.run(["git", "ls-files", "*README.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    shown = {name for name in tracked.stdout.split() if commands(ROOT / name) or blocks(ROOT / name, "python")}
    assert shown <= {named(readme) for readme in READMES}


def test_every_command_is_of_a_kind_that_is_checked():
    every = [line for readme in READMES for line in commands(readme)]
    assert len(NOX_COMMANDS) == 2
    assert all(line.startswith("trans4init ") for line in every if line not in NOX_COMMANDS)
    assert set(LONG) <= set(every)


def test_the_nox_sessions_it_names_exist():
    sessions = set(re.findall(r"nox -s ([a-z]+)", README))
    defined = set(re.findall(r"@nox\.session\ndef ([a-z]+)\(", (ROOT / "noxfile.py").read_text()))
    assert sessions <= defined
    of_tests = {"tests", "faults", "gpu", "cluster", "mutants", "calibration"}
    assert of_tests | {"lint", "typing", "bench", "ablate", "report", "ui"} == defined


@pytest.mark.parametrize("readme", [readme for readme in READMES if commands(readme)], ids=named)
def test_the_commands_run_in_their_order(readme, tmp_path):
    """In an empty folder with a text and the files that the README shows, one after the other."""
    for block in blocks(readme, "toml") + blocks(readme, "python"):
        if name := re.match(r"# ([\w-]+\.(?:toml|py))\n", block):
            (tmp_path / name[1]).write_text(block)
    (tmp_path / "my.txt").write_bytes((ROOT / "LICENSE-docs").read_bytes() * 2)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    data = os.environ.get("TRANS4INIT_DATA")
    has_shakespeare = data is not None and (Path(data) / "tinyshakespeare").is_dir()
    if has_shakespeare:
        environment["TRANS4INIT_DATA"] = str(Path(data).resolve())
    for line in commands(readme):
        if line in NOX_COMMANDS or ("positional-text-full" in line and not has_shakespeare):
            continue
        words = [*shlex.split(line), *LONG.get(line, [])]
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=1800
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    if readme == ROOT / "README.md":
        assert (tmp_path / "runs" / "my-study" / "report.html").exists()
        assert (tmp_path / "runs" / "first-look-my" / "report.html").exists()


@pytest.mark.parametrize("readme", [readme for readme in READMES if blocks(readme, "python")], ids=named)
def test_the_snippets_run(readme, tmp_path):
    """Each README's snippets are one program, so that a later one may use what an earlier one made."""
    program = "\n".join(blocks(readme, "python"))
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if readme == ROOT / "README.md":
        assert re.search(r"largest error on \[-4, 4\]: 0\.0\d\d", done.stdout)
    if readme.parent.name == "transformer":
        assert done.stdout.rstrip().endswith("blocks.1.cross_attention")


def section(name):
    return re.search(rf"<!-- {name}(?: [^>]*)? -->\n(.*?)<!-- /{name} -->", README, re.DOTALL)[1].strip()


def published():
    return ROOT / Path(re.search(r"!\[[^\]]*\]\((reports/published/[^)]+)\)", README)[1]).parent


def test_the_figure_and_the_verdict_are_those_of_published_results(tmp_path):
    """Rendered again from the committed Parquet files, the words of the README come out."""
    from trans4init.reports.study_report.report import write_report

    folder = published()
    assert (folder / "report.svg").exists()
    shutil.copytree(folder / "results", tmp_path / "results")
    report = write_report(tmp_path)
    lines = [line.removeprefix("> ") for line in section("verdict").splitlines() if line != ">"]
    assert lines == report.text.lines()
    assert report.markdown.read_bytes() == (folder / "report.md").read_bytes()
    assert report.drawing.read_bytes() == (folder / "report.svg").read_bytes()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_figures_are_those_of_published_results(name):
    """`nox -s report` would change nothing."""
    text = (ROOT / name).read_text(encoding="utf-8")
    assert filled(text, ROOT) == text


def test_no_speed_is_typed():
    """A time or a rate in the README's prose is between marks, or in a block that shows a file or a command."""
    prose = re.sub(r"<!-- (\w+)[^>]*-->.*?<!-- /\1 -->|```.*?```|`[^`]*`", "", README, flags=re.DOTALL)
    assert not re.findall(r"\d[\d.,]* ?(?:ms|µs|s|min|tokens/s|GFLOP/s|GB/s|times as fast)\b|×\s?\d", prose)


def test_the_arms_are_those_of_the_registry():
    rows = [f"| `{arm.name}` | {arm.holds} | {arm.moves} |" for arm in map(get_arm, list_arms())]
    assert section("arms").splitlines()[2:] == rows


def test_the_paths_it_names_exist():
    paths = set(re.findall(r"`((?:ablations|kernels|reports|bench|tests)/[\w./-]*)`", README))
    assert len(paths) > 5
    assert [path for path in paths if not (ROOT / path).exists()] == []
