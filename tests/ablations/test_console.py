"""What commands print is what they were given, whatever rich would make of it."""

import ast
from pathlib import Path

from rich.table import Table

from trans4init.ablations.console import plain_console

ROOT = Path(__file__).resolve().parents[2]
ODD = "a/[/x]/[bold]b:smile:{c}"


def test_names_are_printed_as_they_are(capsys):
    console = plain_console(width=200)
    table = Table(ODD, title=ODD)
    table.add_row(ODD)
    console.print(ODD)
    console.print(table)
    assert capsys.readouterr().out.count(ODD) == 4


def test_no_command_prints_on_another_console():
    """Nor on a progress column that reads markup. `reports/speed/table.py` prints rich's Text, which has no markup."""
    calls = {
        (path.relative_to(ROOT).as_posix(), ast.unparse(call))
        for floor in ("ablations", "bench", "reports")
        for path in (ROOT / floor).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("Console", "TextColumn")
    }
    consoles = {path for path, call in calls if call.startswith("Console(")}
    assert consoles == {"ablations/console.py", "reports/speed/table.py"}
    assert all("description" not in call or "markup=False" in call for _, call in calls)
