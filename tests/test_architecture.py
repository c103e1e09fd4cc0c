"""The order of the packages: imports point from high to low, and only `cli` talks to the terminal."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from copy import deepcopy
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import imgcap

ROOT = Path(imgcap.__file__).parent
LAYERS = [
    {"errors", "_version", "file_attributes", "files", "sharding", "device"},
    {"distributed"},
    {"text"},
    {"images"},
    {"scoring"},
    {"model"},
    {"dataset"},
    {"pages"},
    {"captioning"},
    {"training"},
    {"doctor", "bench"},
    {"cli"},
    {"__init__", "__main__"},
]
"""Packages and modules of `imgcap`, low to high. Modules of one package or of the first layer may import each other."""

FILES = sorted(ROOT.rglob("*.py"))


def module_name(file: Path) -> str:
    """`model/search.py` -> `model.search`, `model/__init__.py` -> `model`, `__init__.py` -> `__init__`."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


TREES = {module_name(file): ast.parse(file.read_text(encoding="utf-8")) for file in FILES}


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Full names of all imports in a module, including those in functions and under `TYPE_CHECKING`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not used"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_modules(tree: ast.AST) -> set[str]:
    """Modules of `imgcap` that a module imports."""
    found = set()
    for name in imported_names(tree):
        top, _, inner = name.partition(".")
        if top == "imgcap":
            while inner and inner not in TREES:
                inner = inner.rpartition(".")[0]
            found.add(inner or "__init__")
    return found


class WithoutTypeImports(ast.NodeTransformer):
    """Removes `if TYPE_CHECKING:` blocks."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        return node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)


GRAPH = {name: own_modules(tree) - {name} for name, tree in TREES.items()}


def package(module: str) -> str:
    return module.split(".")[0]


def layer(module: str) -> int:
    """Number of the layer; that of an unknown package is 0, and the first test fails."""
    return next((number for number, names in enumerate(LAYERS) if package(module) in names), 0)


def test_every_package_has_a_layer() -> None:
    assert {package(module) for module in GRAPH} == set().union(*LAYERS)


def test_imports_point_down() -> None:
    upward = [
        f"{importer} imports {imported}"
        for importer, modules in GRAPH.items()
        for imported in modules
        if layer(imported) > layer(importer)
        or (layer(imported) == layer(importer) > 0 and package(imported) != package(importer))
    ]
    assert upward == []


def test_modules_do_not_import_each_other_in_a_cycle() -> None:
    """Imports for types only may do so within a package."""
    graph = {name: own_modules(WithoutTypeImports().visit(deepcopy(tree))) - {name} for name, tree in TREES.items()}
    list(TopologicalSorter(graph).static_order())  # raises `CycleError` with the cycle


@pytest.mark.parametrize("module", [name for name in TREES if layer(name) < layer("cli")])
def test_only_the_command_line_talks_to_the_terminal(module: str) -> None:
    tree = TREES[module]
    libraries = {name.split(".")[0] for name in imported_names(tree)}
    assert not libraries & {"typer", "click", "rich"}
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not called & {
        "print",
        "input",
        "exit",
        "quit",
        "sys.exit",
        "os._exit",
        "sys.stdout.write",
        "sys.stderr.write",
    }
    raised = {ast.unparse(node.exc) for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc}
    assert not {name.split("(")[0] for name in raised} & {"SystemExit", "KeyboardInterrupt"}


def test_the_rules_see_imports_in_functions_and_for_types_only() -> None:
    source = """
import imgcap.model.search
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from imgcap.cli.console import out
def load() -> None:
    from imgcap import doctor
    from imgcap.model import store as model_store
    from imgcap import load_model
"""
    tree = ast.parse(source)
    assert own_modules(tree) == {"model.search", "cli.console", "doctor", "model.store", "__init__"}
    assert own_modules(WithoutTypeImports().visit(tree)) == {"model.search", "doctor", "model.store", "__init__"}
