"""`imgcap bench`: measure speed on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from imgcap.cli import options
from imgcap.cli.console import err, interruptible, print_result, print_table
from imgcap.model.store import DEFAULT_MODEL


def bench(
    model: options.Model = DEFAULT_MODEL,
    device: options.Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure the encoder, the startup time of a command, and a folder of large images. Takes about a minute.

    On a CPU, the encoder is also compared with plain torchvision and with the rate of matrix products (torch.mm). Other
    programs that are running make the figures worse.
    """
    import torch
    from rich.table import Table

    from imgcap.bench import machine, measure
    from imgcap.device import pick_device
    from imgcap.model.encoder import automatic_precision

    figures = []
    with interruptible("The measurement is incomplete."), err.status("Measuring") as status:
        for figure in measure(model, device):
            figures.append(figure)
            status.update(f"Measuring: {len(figures)} so far, the last was {figure.name}")
    where = machine(torch.get_num_threads())
    precision, why = automatic_precision(pick_device(device))
    if as_json:
        found = {"machine": where, "auto_precision": precision, "figures": [asdict(figure) for figure in figures]}
        print_result(json.dumps(found))
        return
    table = Table("what", "", "", show_header=False, box=None)
    for figure in figures:
        table.add_row(figure.name, f"{figure.value:.2f}", figure.unit)
    print_table(table)
    print_result(where)
    print_result(f"--precision auto chooses {precision} here, because {why}.")
