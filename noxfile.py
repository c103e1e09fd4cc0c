"""The checks of this project, each by its name: `nox -s tests`. `nox` alone runs all of them, `nox -l` lists them.

They run in the environment that you are in, after `pip install -e '.[dev]'`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.stop_on_first_error = True

PYTHON = sys.executable


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests on all cores, without the slow ones: `nox -s tests -- tests/scoring -k bleu`."""
    session.run(PYTHON, "-m", "pytest", "-n", "auto", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """Run the slow tests: the fuzzer, the recipe of the shipped model, commands without a network."""
    session.run(PYTHON, "-m", "pytest", "-n", "auto", "-m", "slow", *session.posargs)


@nox.session
def style(session: nox.Session) -> None:
    """Lint and check the format. `nox -s style -- --fix` mends what it can."""
    if "--fix" in session.posargs:
        session.run(PYTHON, "-m", "ruff", "check", "--fix", ".")
        session.run(PYTHON, "-m", "ruff", "format", ".")
    else:
        session.run(PYTHON, "-m", "ruff", "check", ".")
        session.run(PYTHON, "-m", "ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package, the tests, the tools and the benchmarks."""
    session.run(PYTHON, "-m", "mypy", *session.posargs)


@nox.session
def security(session: nox.Session) -> None:
    """Look for known kinds of security holes in the source.

    Skipped: asserts, which are for mypy; random numbers, none of which is a secret; programs started without a shell;
    and the xml.sax package, of which only `escape` is used. Advisories need the network: .github/workflows/test.yml.
    """
    session.run(PYTHON, "-m", "bandit", "-q", "-r", "src", "tools", "--skip", "B101,B311,B404,B406,B603")


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel, check what is in it, install it alone, and caption an image with it."""
    image = Path("examples/cat.jpg").resolve()
    with tempfile.TemporaryDirectory() as folder:
        session.run(PYTHON, "-m", "build", "--wheel", "--outdir", folder, ".")
        [file] = Path(folder).glob("*.whl")
        session.run(PYTHON, "tools/check_wheel.py", str(file))
        session.run(PYTHON, "-m", "venv", f"{folder}/user")
        programs = Path(folder, "user", "Scripts" if sys.platform == "win32" else "bin")
        session.run(str(programs / "pip"), "install", "-q", str(file))
        with session.chdir(folder):
            caption = session.run(str(programs / "imgcap"), "caption", str(image), silent=True, stderr=None)
        session.log(caption)
        if not caption:
            session.error("The installed wheel printed no caption.")
