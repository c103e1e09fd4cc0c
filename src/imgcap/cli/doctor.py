"""`imgcap doctor`: check the installation."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from imgcap.cli import options
from imgcap.cli.console import err, interruptible, out, print_result, print_table
from imgcap.errors import ExitCode, printable
from imgcap.model.store import DEFAULT_MODEL


def doctor(
    model: options.Model = DEFAULT_MODEL,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check versions, cache, models, and the captions of bundled images, and explain how to fix what is wrong.

    Exit codes: 0 nothing is wrong, 1 something is wrong.
    """
    from rich.table import Table
    from rich.text import Text

    from imgcap.doctor import examine

    with interruptible("The checks are incomplete."), err.status("Checking"):
        findings = list(examine(model))
    healthy = all(finding.ok for finding in findings)
    if as_json:
        print_result(json.dumps({"ok": healthy, "findings": [asdict(finding) for finding in findings]}))
    else:
        rows = [
            (printable(f.name), "ok" if f.ok else "wrong", printable(f"{f.text} {f.remedy}".strip())) for f in findings
        ]
        if out.is_terminal:
            table = Table(show_header=False, box=None)
            for name, verdict, text in rows:
                table.add_row(Text(name), Text(verdict, "green" if verdict == "ok" else "bold red"), Text(text))
            print_table(table, wrap=True)
        else:
            width = max(len(name) for name, _, _ in rows)
            for name, verdict, text in rows:
                print_result(f"{name:{width}}  {verdict:5}  {text}")
    if not healthy:
        raise typer.Exit(ExitCode.FAILED)
