"""verl's FSDP in two processes over gloo, for real: the steps of one, within rounding. `make nightly` runs it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl is not installed here: `make test-fsdp` runs this")

from safetensors.torch import load_file

from siri.engines.verl.checkpoints import STATE, obstacle
from siri.home import Home
from siri.metrics import METRICS
from siri.runs.advancing import advance
from siri.runs.run import Run
from siri.runs.step_log import read_lines
from siri.store.entries import WEIGHTS
from tests.conftest import prepare
from tests.upped import ROOT
from tests.verl.support import left, tiny_verl, use_cpu

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif("SIRI_NIGHTLY" not in os.environ, reason="takes minutes: `make test-fsdp` or `make nightly`"),
]
EXACT = [name for name in METRICS if name.startswith(("rollout/", "reward/"))]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Run]]:
    """Number of processes -> the run of two steps, trained in a work folder of its own."""
    before, folder, trained = dict(os.environ), tmp_path_factory.mktemp("fsdp"), {}
    os.environ["PYTHONPATH"] = str(ROOT)
    use_cpu(folder / "budgets.jsonl")
    prepare(tiny_verl("schedule.cycle_steps=4"), Home(folder / "base"))
    for processes in (1, 2):
        home = Path(shutil.copytree(folder / "base", folder / str(processes)))
        config = tiny_verl("schedule.cycle_steps=4", processes=processes)
        trained[processes] = prepare(config, Home(home))
        assert [report.step for report in advance(trained[processes], 2)] == [1, 2]
        assert left() == []
    yield trained
    os.environ.clear()
    os.environ |= before


def test_two_processes_take_the_steps_of_one_within_rounding(runs: dict[int, Run]) -> None:
    one, two = (read_lines(run.folder / "metrics.jsonl") for run in runs.values())
    for single, double in zip(one, two, strict=True):
        for name in (*EXACT, "update/grad_norm", "update/loss"):
            assert double[name] == pytest.approx(single[name], rel=1e-3, abs=1e-6), (double["step"], name)
    assert sum(line["update/grad_norm"] for line in two) > 0, "some group had right and wrong answers"


def test_their_weights_are_one_process_s_within_rounding(runs: dict[int, Run]) -> None:
    folders = [weights_of(run) for run in runs.values()]
    single, double = (load_file(folder / WEIGHTS) for folder in folders)
    assert single.keys() == double.keys()
    apart = max(float((single[name] - double[name]).abs().max()) for name in single)
    start = load_file(weights_of(runs[1], "base") / WEIGHTS)
    moved = max(float((single[name] - start[name]).abs().max()) for name in single)
    assert moved > 1e-4
    assert apart < moved / 20


def test_the_state_is_cut_in_two_and_says_so(runs: dict[int, Run]) -> None:
    folder = weights_of(runs[2])
    pieces = sorted(path.name for path in folder.glob("state.verl.optim_world_size_2_rank_*"))
    assert len(pieces) == 2
    assert (folder / STATE).exists()
    assert obstacle(folder, 2) == ""
    assert obstacle(folder, 1) == "its state is of 2 GPUs, here are 1"


def weights_of(run: Run, snapshot: str = "c1-low") -> Path:
    entry = run.snapshot(snapshot)
    assert entry is not None
    return entry.folder
