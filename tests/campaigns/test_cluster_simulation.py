"""benchmarks/cluster_simulation.py against what can be computed without it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def simulation() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import cluster_simulation

        yield cluster_simulation
        del sys.modules["cluster_simulation"]


@pytest.mark.parametrize(("workers", "images", "rounds"), [(1, 700, 7), (3, 900, 3), (3, 1000, 4), (50, 1000, 1)])
def test_equal_workers_without_failures_work_in_rounds(simulation: Any, workers: int, images: int, rounds: int) -> None:
    cluster = simulation.Cluster(workers=workers, rate=20, start_up=2)
    result = simulation.simulate(cluster, images, 100)
    assert result.time == pytest.approx(rounds * (2 + 100 / 20))
    assert result.ideal == pytest.approx(images / (20 * workers))
    assert result.start_up == pytest.approx(2 / 7)
    assert (result.twice, result.failures, result.copies) == (pytest.approx(0), 0, 0)


def test_the_last_shard_may_be_smaller(simulation: Any) -> None:
    result = simulation.simulate(simulation.Cluster(workers=1, rate=10), 250, 100)
    assert result.time == pytest.approx(25)


def test_a_shard_that_starts_over_takes_exponentially_long(simulation: Any) -> None:
    """The mean time to the first stretch of T seconds without a failure is (e^(T / mtbf) - 1) (mtbf + restart)."""
    shards, length, mtbf, restart = 20_000, 150.0, 100.0, 20.0
    cluster = simulation.Cluster(workers=1, rate=10, start_up=50, mtbf=mtbf, restart=restart)
    result = simulation.simulate(cluster, shards * 1000, 1000, resume=False)
    expected = (math.exp(length / mtbf) - 1) * (mtbf + restart)
    assert result.time / shards == pytest.approx(expected, rel=0.03)
    assert result.failures / shards == pytest.approx(math.exp(length / mtbf) - 1, rel=0.03)


def test_a_resumed_shard_pays_for_restarts_alone(simulation: Any) -> None:
    cluster = simulation.Cluster(workers=20, rate=100, mtbf=1000, restart=100)
    result = simulation.simulate(cluster, 20_000_000, 10_000)
    assert result.time / result.ideal == pytest.approx(1.1, rel=0.02)
    assert result.twice == pytest.approx(0, abs=1e-4)


def test_reading_rows_and_captioning_the_torn_batch_again_cost_time(simulation: Any) -> None:
    plain = {"workers": 20, "rate": 100, "mtbf": 1000, "restart": 100}
    times = [
        simulation.simulate(simulation.Cluster(**plain, **more), 2_000_000, 50_000).time
        for more in ({}, {"rows_rate": 1000}, {"batch": 10_000})
    ]
    assert times[0] < times[1] and times[0] < times[2]


def test_a_copy_ends_what_a_straggler_would_end_late(simulation: Any) -> None:
    cluster = simulation.Cluster(workers=2, rate=10, stragglers=0.5, slowdown=(10, 10))
    assert simulation.simulate(cluster, 200, 100).time == pytest.approx(100)
    result = simulation.simulate(cluster, 200, 100, copies=True)
    assert result.time == pytest.approx(20)
    assert result.twice == pytest.approx(0.1)  # the 20 images of the straggler
    assert result.copies == 1


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("copies", [True, False])
@pytest.mark.parametrize("shard_size", [10, 333, 5000])
def test_no_run_is_faster_than_the_ideal_and_equal_seeds_are_equal(
    simulation: Any, resume: bool, copies: bool, shard_size: int
) -> None:
    cluster = simulation.Cluster(
        workers=30, rate=10, spread=0.3, stragglers=0.1, start_up=1, mtbf=500, restart=60, rows_rate=500, batch=8
    )
    results = [simulation.simulate(cluster, 20_000, shard_size, resume, copies, seed) for seed in (0, 0, 1)]
    assert results[0] == results[1] != results[2]
    assert all(result.time > result.ideal and result.twice > -1e-9 for result in results)
    assert results[0].failures > 0 and 0 < results[0].start_up < 1


def test_a_run_that_cannot_end_is_given_up(simulation: Any) -> None:
    cluster = simulation.Cluster(workers=2, rate=1, mtbf=100, restart=10)
    result = simulation.simulate(cluster, 20_000, 10_000, resume=False)
    assert result.unfinished == 1 and result.time >= simulation.GIVE_UP * result.ideal


def test_the_command_prints_a_table_and_json(
    simulation: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    image = tmp_path / "simulation.svg"
    options = "--images 100000 --workers 20 --shard-sizes 1000 100 --repeats 2 --figure"
    monkeypatch.setattr(sys, "argv", ["cluster_simulation.py", *options.split(), str(image)])
    simulation.main()
    *table, last = capsys.readouterr().out.splitlines()
    assert [row.split(" | ")[:2] for row in table[2:]] == [["| 100", "1,000"], ["| 1,000", "100"]]
    assert len({row.count(" | ") for row in (table[0], *table[2:])}) == 1
    assert [line["shard_size"] for line in json.loads(last)["lines"]] == [100, 1000]
    assert image.read_text(encoding="utf-8").startswith("<svg")
