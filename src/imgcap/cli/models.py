"""`imgcap model`: the shipped model and imported ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imgcap.cli.console import print_error, print_message, print_path, print_result
from imgcap.errors import ExitCode, ImgcapError, printable
from imgcap.files import read_text
from imgcap.model import store as model_store
from imgcap.model.store import DEFAULT_MODEL

app = typer.Typer(help="List, check, import and remove models.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A model's name, or its folder.")]


@app.command("list")
def list_models() -> None:
    """Print the names that --model accepts."""
    for name in model_store.available_models():
        print_result(printable(name))


@app.command()
def path(name: Name = DEFAULT_MODEL) -> None:
    """Print the folder of a model. The default model is unpacked first if necessary."""
    print_path(model_store.locate(name))


@app.command()
def show(name: Name = DEFAULT_MODEL) -> None:
    """Print a model's card: data, recipe, scores and limits. Of a model without one, print what its folder tells."""
    folder = model_store.locate(name)
    card = folder / model_store.MODEL_CARD_FILE
    if card.is_file():
        print_result("\n".join(printable(line.expandtabs()) for line in read_text(card).rstrip().split("\n")))
        return
    import torch

    from imgcap.model.folder import load_model_folder
    from imgcap.training.description import describe_model

    described = describe_model(load_model_folder(folder, torch.device("cpu")))
    width = max(len(label) for label, _ in described)
    for label, text in described:
        print_result(f"{label:{width}}  {printable(text)}")


@app.command()
def verify(name: Annotated[str | None, typer.Argument(help="Model to check; by default all models.")] = None) -> None:
    """Check the files of models against their checksums. A damaged copy of the default model is repaired."""
    failed = False
    for each in [name] if name else model_store.available_models():
        try:
            print_result(f"{printable(each)}\tok\t{printable(str(model_store.locate(each)))}")
        except ImgcapError as error:
            failed = True
            print_error(str(error), error.hint)
    if failed:
        raise typer.Exit(ExitCode.FAILED)


@app.command("import")
def import_model(
    folder: Annotated[Path, typer.Argument(help="Model folder written by `imgcap train`.")],
    name: Annotated[str | None, typer.Option(help="Name of the model; by default that of the folder.")] = None,
) -> None:
    """Copy a model folder into the user cache, so that it can be used by name."""
    target = model_store.import_model(folder, name)
    print_message(f"Imported as {target.name}. Use it with --model {target.name}.")


@app.command()
def clean() -> None:
    """Remove the default models that other versions of imgcap have left in the user cache."""
    removed = model_store.remove_other_versions()
    for folder in removed:
        print_message(f"Removed {folder}.")
    if not removed:
        print_message("There are no default models of other versions in the user cache.")


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Name of an imported model.")]) -> None:
    """Remove an imported model, or the unpacked copy of the default model, from the user cache."""
    print_message(f"Removed {model_store.remove_model(name)}.")
