"""`imgcap doctor`: each check with and without a fault, and the command as a whole."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import namedtuple
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

import imgcap.cli.doctor as command
from helpers.data import Run
from imgcap import doctor
from imgcap._version import DISTRIBUTION, __version__
from imgcap.captioning.captioner import MAX_DISTANCE, Captioner, load_model
from imgcap.errors import ExitCode, ImgcapError
from imgcap.model.encoder import Encoder, EncoderConfig, read_encoder, save_encoder
from imgcap.model.inception import AveragePool
from imgcap.model.quantization import calibration_images
from imgcap.model.store import DECODER_FILE, ENCODER_FILE, import_model, write_manifest

Disk = namedtuple("Disk", "free")


@pytest.fixture(autouse=True)
def shipped(telling_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default model is a small one, and torchvision is not imported."""
    monkeypatch.setattr("imgcap.model.store._packaged_default", lambda: telling_model)
    monkeypatch.setattr(doctor, "import_torchvision", lambda module: None)


@pytest.fixture
def captioner(telling_model: Path) -> Captioner:
    return load_model(telling_model, device="cpu")


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Versions to report for some packages; None: not installed."""
    faked: dict[str, str | None] = {}
    real_version = metadata.version

    def version(name: str) -> str:
        found = faked[name] if name in faked else real_version(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)
    return faked


def test_a_healthy_installation_passes_every_check(imgcap_here: Run, telling_model: Path) -> None:
    import_model(telling_model, "walls")
    done = imgcap_here("doctor")
    assert done.returncode == ExitCode.DONE, done.stdout + done.stderr
    rows = {name.strip(): rest for name, rest in (line.split("  ok     ") for line in done.stdout.splitlines())}
    assert list(rows)[:2] == ["Python", "imgcap"]
    assert {"numpy", "pillow", "torch", "torchvision", "typer"} < set(rows)
    assert list(rows)[-9:] == [
        "cache",
        "free disk",
        "threads",
        "processor",
        "model default",
        "model walls",
        "encoder",
        "features",
        "captions",
    ]
    assert rows["torch"].startswith(torch.__version__)
    assert "different ones for 4 images" in rows["captions"]
    assert len({line.index(" ok ") for line in done.stdout.splitlines()}) == 1  # aligned


def test_json_holds_the_same(imgcap_here: Run, telling_model: Path) -> None:
    done = imgcap_here("doctor", "--model", telling_model, "--json")
    assert done.returncode == ExitCode.DONE, done.stdout
    found = json.loads(done.stdout)
    assert found["ok"] is True
    assert all(row["ok"] and row["text"] and not row["remedy"] for row in found["findings"])
    assert f"model {telling_model}" in [row["name"] for row in found["findings"]]


def test_a_failed_check_has_a_remedy_and_does_not_stop_the_others(
    imgcap_here: Run, versions: dict[str, str | None]
) -> None:
    versions["numpy"], versions["typer"] = "1.20.1", None
    done = imgcap_here("doctor")
    assert done.returncode == ExitCode.FAILED
    wrong = [line.split("  wrong  ") for line in done.stdout.splitlines() if "  wrong  " in line]
    assert {name.strip() for name, _ in wrong} == {"numpy", "typer"}
    assert wrong[0][1].startswith("numpy 1.20.1 is not >=")
    assert 'Run: pip install "numpy>=' in wrong[0][1]
    assert done.stdout.splitlines()[-1].startswith("captions")
    found = json.loads(imgcap_here("doctor", "--json").stdout)
    assert found["ok"] is False
    assert [row["name"] for row in found["findings"] if not row["ok"]] == ["numpy", "typer"]


def test_a_terminal_gets_a_table_that_fits_without_reading_markup(
    imgcap_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Console(force_terminal=True, no_color=True, width=40)
    monkeypatch.setattr(command, "out", terminal)
    monkeypatch.setattr("imgcap.cli.console.out", terminal)
    findings = [doctor.Finding("[red]a", True, "b\x1b[2J"), doctor.Finding("c", False, "d " * 40, "Mend it.")]
    monkeypatch.setattr(doctor, "examine", lambda model: iter(findings))
    done = imgcap_here("doctor")
    assert done.returncode == ExitCode.FAILED
    text = "".join(c for c in done.stdout if c.isprintable() or c == "\n")
    assert "[red]a" in text
    assert "b\\x1b[2J" in text
    assert "Mend it." in text
    assert len(text.splitlines()) > 3
    assert all(len(line) <= 40 for line in text.splitlines())


@pytest.mark.parametrize(
    ("version", "bounds", "fits"),
    [
        ("2.13.0+cpu", ">=2.6,<2.14", True),
        ("2.6", ">=2.6,<2.14", True),
        ("2.6.0rc1", "<2.14,>=2.6", False),
        ("2.7.0rc1", "<2.14,>=2.6", True),
        ("2.14.0", "<2.14,>=2.6", False),
        ("2.5.9", ">=2.6", False),
        ("2.10.0", ">=2.6", True),
        ("2.13.0+cu128", "==2.13.0", True),
        ("2.13.1", "==2.13.0", False),
        ("2.13", "==2.13.0", True),
        ("1.0", "", True),
    ],
)
def test_versions_are_compared_as_pip_does(version: str, bounds: str, fits: bool) -> None:
    assert doctor._fits(version, bounds) is fits


def test_requirements_are_those_that_the_package_declares() -> None:
    needed = doctor._requirements(DISTRIBUTION)
    assert set(needed["torch"].split(",")) >= {">=2.6"}
    assert "pytest" not in needed
    assert doctor._requirements("no-such-package") == {}


def test_a_wrong_version_of_python_or_imgcap_is_reported(
    monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None]
) -> None:
    assert doctor.check_python().ok
    monkeypatch.setattr("platform.python_version", lambda: "3.9.1")
    assert not doctor.check_python().ok
    assert "3.9.1" in doctor.check_python().text
    versions[DISTRIBUTION] = __version__
    assert doctor.check_imgcap().ok
    versions[DISTRIBUTION] = "0.0.1"
    assert "0.0.1 is installed" in doctor.check_imgcap().text
    versions[DISTRIBUTION] = None
    finding = doctor.check_imgcap()
    assert not finding.ok
    assert finding.remedy


def test_torchvision_must_fit_torch(versions: dict[str, str | None], monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = {"torch": "==2.9.0"}
    monkeypatch.setattr(doctor, "_requirements", lambda package: requirements)
    versions |= {"torchvision": "0.24.0", "torch": "2.9.0+cpu"}
    assert doctor.check_torchvision(">=0.21,<0.29").ok
    assert "0.24.0 is not <0.24" in doctor.check_torchvision("<0.24").text
    versions["torch"] = "2.8.0"
    finding = doctor.check_torchvision(">=0.21")
    assert not finding.ok
    assert finding.text == "torchvision 0.24.0 needs torch ==2.9.0, but torch 2.8.0 is installed."
    assert "together" in finding.remedy
    versions["torchvision"] = None
    assert doctor.check_torchvision(">=0.21").ok  # captions do not need it


def test_a_torchvision_that_cannot_be_imported_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = doctor._requirements(DISTRIBUTION)["torchvision"]
    assert doctor.check_torchvision(bounds).ok

    def fail(module: str) -> None:
        raise RuntimeError("no\noperators")

    monkeypatch.setattr(doctor, "import_torchvision", fail)
    finding = doctor.check_torchvision(bounds)
    assert (finding.ok, finding.text) == (False, "RuntimeError: no operators")


def test_the_cache_is_reported(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_cache() == doctor.Finding("cache", True, f"{cache}, writable: empty")
    (cache / "models" / "a").mkdir(parents=True)
    (cache / "models" / "a" / "weights").write_bytes(bytes(2_000_000))
    assert doctor.check_cache().text == f"{cache}, writable: models 2 MB"
    (cache / "shipped" / "0123456789abcdef").mkdir(parents=True)
    (cache / "shipped" / "0123456789abcdef" / "weights").write_bytes(bytes(3_000_000))
    assert doctor.check_cache().text == (
        f"{cache}, writable: models 2 MB, shipped 3 MB; 3 MB are of other versions: `imgcap model clean` removes them"
    )
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert doctor.check_cache().ok
    assert "read-only" in doctor.check_cache().text
    monkeypatch.setenv("IMGCAP_CACHE_DIR", str(cache / "new"))
    finding = doctor.check_cache()
    assert not finding.ok
    assert "IMGCAP_CACHE_DIR" in finding.remedy
    monkeypatch.undo()
    monkeypatch.setenv("IMGCAP_CACHE_DIR", str(cache / "new"))
    assert doctor.check_cache().ok


@pytest.mark.parametrize("inside", ["", "cache"])
def test_a_file_in_place_of_the_cache_is_wrong(inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IMGCAP_CACHE_DIR", str(tmp_path / "file" / inside))
    finding = doctor.check_cache()
    assert not finding.ok
    assert str(tmp_path / "file") in finding.text


def test_a_full_disk_is_wrong_if_the_cache_is_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_disk().ok
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Disk(3_000_000))
    finding = doctor.check_disk()
    assert not finding.ok
    assert "Only 3 MB" in finding.text
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert doctor.check_disk().ok


def test_more_threads_than_cores_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_threads().ok
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1000)
    finding = doctor.check_threads()
    assert not finding.ok
    assert "OMP_NUM_THREADS" in finding.remedy


@pytest.mark.parametrize("has_it", [True, False])
def test_the_processor_is_reported(has_it: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgcap.device.torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("imgcap.model.encoder.is_supported", lambda: has_it)
    monkeypatch.setattr("imgcap.model.encoder.has_fast_bfloat16", lambda device: has_it)
    finding = doctor.check_processor()
    assert finding.ok
    assert finding.text == (
        "cpu, fast bfloat16; --precision auto chooses int8, because this processor supports fast 8-bit integers (VNNI)"
        if has_it
        else "cpu, no fast bfloat16; --precision auto chooses float32, because this processor or this version of torch "
        "does not support fast 8-bit integers (VNNI)"
    )


def test_a_torch_that_cannot_be_imported_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # makes its import fail
    monkeypatch.delitem(sys.modules, "imgcap.captioning.captioner")
    findings = list(doctor.examine())
    assert [finding.name for finding in findings if not finding.ok] == ["threads", "loading"]
    assert all(finding.remedy for finding in findings if not finding.ok)


def test_a_damaged_or_unknown_model_is_reported_once(telling_model: Path, cache: Path) -> None:
    import_model(telling_model, "walls")
    assert doctor.check_files("walls").ok
    (cache / "models" / "walls" / DECODER_FILE).write_bytes(b"damaged")
    findings = list(doctor.examine("walls"))
    [wrong] = [finding for finding in findings if not finding.ok]
    assert wrong is findings[-1]
    assert wrong.name == "model walls"
    assert DECODER_FILE in wrong.text
    assert wrong.remedy
    assert [f.name for f in doctor.examine() if not f.ok] == [
        "model walls"
    ]  # the default model is checked all the same
    assert [f.text for f in doctor.examine("barns") if f.name == "model barns"] == ["There is no model 'barns'."]


def test_an_encoder_from_elsewhere_is_wrong(captioner: Captioner, telling_model: Path, tmp_path: Path) -> None:
    assert doctor.check_encoder(captioner).ok
    folder = tmp_path / "mixed"
    shutil.copytree(telling_model, folder)
    weights, config = read_encoder(folder / ENCODER_FILE)
    save_encoder(folder / ENCODER_FILE, weights, EncoderConfig(pixels=config.pixels), torch.float16)  # pools otherwise
    write_manifest(folder)
    finding = doctor.check_encoder(load_model(folder, "cpu"))
    assert not finding.ok
    assert str(folder) in finding.text


Change = Callable[[Tensor], Tensor]
TO_INPUT = Encoder.to_input


@pytest.mark.parametrize(
    "change",
    [lambda x: x.flip(1), lambda x: (x + 1) / 2, lambda x: (x + 1) * 127.5, lambda x: x.transpose(2, 3)],
    ids=["blue first", "0 to 1", "0 to 255", "transposed"],
)
def test_an_input_that_differs_from_the_training_is_wrong(
    change: Change, captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor.check_features(captioner).ok, doctor.check_features(captioner)
    monkeypatch.setattr(Encoder, "to_input", lambda self, pixels: change(TO_INPUT(self, pixels)))
    finding = doctor.check_features(captioner)
    assert not finding.ok
    assert "differ from the reference" in finding.text


def test_colours_that_are_decoded_wrongly_are_wrong(captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    swapped = [image[..., ::-1].copy() for image in calibration_images(75)]
    monkeypatch.setattr("imgcap.model.quantization.calibration_images", lambda size: swapped)
    assert "wrong colours" in doctor.check_features(captioner).text


def test_features_that_are_not_numbers_are_wrong(captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Encoder, "__call__", lambda self, pixels: torch.full((len(pixels), 2048), torch.nan))
    assert "not numbers" in doctor.check_features(captioner).text


@pytest.fixture
def expected(captioner: Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Record the small model's features and caption of the cat."""
    monkeypatch.setattr(doctor, "EXPECTED_FILE", tmp_path / "doctor_expected.safetensors")
    doctor.write_expected(captioner)


@pytest.mark.usefixtures("expected")
def test_a_network_that_computes_something_else_everywhere_is_wrong(
    captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor.check_features(captioner).text.endswith(", 0 from the expected ones")
    monkeypatch.setattr(AveragePool, "forward", lambda pool, x: x)
    finding = doctor.check_features(captioner)
    assert not finding.ok
    assert "differ from the expected ones" in finding.text


@pytest.mark.usefixtures("expected")
def test_another_caption_than_the_expected_one_is_wrong(captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_captions(captioner).ok
    monkeypatch.setattr("imgcap.model.folder.Model.text", lambda self, hypothesis: f"a wall {hypothesis.ids}")
    finding = doctor.check_captions(captioner)
    assert not finding.ok
    assert "gets the caption 'a wall" in finding.text


def test_nothing_is_expected_of_another_model(captioner: Captioner) -> None:
    assert "expected" not in doctor.check_features(captioner).text


def test_statistics_of_other_features_are_wrong(captioner: Captioner) -> None:
    decoder = captioner.model.decoder
    decoder.feature_mean = decoder.feature_mean + 2 * MAX_DISTANCE * decoder.feature_std
    finding = doctor.check_features(captioner)
    assert not finding.ok
    assert "away from those of the training images; 10 are tolerated." in finding.text


@pytest.mark.parametrize(("caption", "says"), [("a wall", "the same caption, 'a wall'"), ("", "an empty caption")])
def test_captions_that_say_nothing_are_wrong(
    caption: str, says: str, captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor.check_captions(captioner).ok
    monkeypatch.setattr("imgcap.model.folder.Model.text", lambda self, hypothesis: caption)
    finding = doctor.check_captions(captioner)
    assert not finding.ok
    assert says in finding.text
    assert finding.remedy


def test_the_hint_of_an_error_is_the_remedy(captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ImgcapError("It does not work.", "Do this.")

    monkeypatch.setattr("imgcap.model.encoder.fingerprint", fail)
    assert doctor.check_encoder(captioner) == doctor.Finding("encoder", False, "It does not work.", "Do this.")
