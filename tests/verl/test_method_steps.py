"""Methods on verl for real: two steps of each are the local engine's, within rounding. `make nightly` runs it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl is not installed here: `make test-fsdp` runs this")

from siri.home import Home
from siri.metrics import METRICS
from siri.runs.advancing import advance
from siri.runs.step_log import read_lines
from tests.conftest import prepare
from tests.upped import ROOT
from tests.verl.support import left, tiny, tiny_verl, use_cpu

pytestmark = [
    pytest.mark.timeout(1500),
    pytest.mark.skipif("SIRI_NIGHTLY" not in os.environ, reason="takes minutes: `make test-fsdp` or `make nightly`"),
]
COMPARED = [name for name in METRICS if name.startswith(("rollout/", "reward/", "update/"))]
ROUGH = ["update/ppo_clip", "update/kl", "update/loss"]
"""verl averages over micro-batches, whatever their size."""
OWN: dict[str, list[str]] = {
    "dapo": ["schedule.min_budget=69", "schedule.max_budget=70"],
    "dot": ["method.settings.deviations=0.5", "method.settings.margin=1"],
    "drpo": [],
    "hapo": ["problems.train_size=8"],
    "toggle": ["problems.train_size=8"],
}
"""Settings under which two steps show what is special to a method."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A work folder with the base that all of them start from."""
    before, folder = dict(os.environ), tmp_path_factory.mktemp("methods")
    os.environ["PYTHONPATH"] = str(ROOT)
    use_cpu(folder / "budgets.jsonl")
    prepare(tiny(), Home(folder / "base"))
    yield folder / "base"
    os.environ.clear()
    os.environ |= before


@pytest.mark.parametrize("name", OWN)
def test_two_steps_on_verl_are_the_local_engine_s(name: str, base: Path, tmp_path: Path) -> None:
    overrides = [f"method.name={name}", "method.draws=1", "schedule.cycle_steps=4", *OWN[name]]
    seen = {}
    for engine, config in {"local": tiny(*overrides), "verl": tiny_verl(*overrides)}.items():
        run = prepare(config, Home(Path(shutil.copytree(base, tmp_path / engine))))
        assert [report.step for report in advance(run, 2)] == [1, 2]
        seen[engine] = read_lines(run.folder / "metrics.jsonl")
    assert left() == []
    for ours, theirs in zip(seen["local"], seen["verl"], strict=True):
        own = [metric for metric in ours if metric.startswith("method/")]
        assert own == [] or set(own) <= theirs.keys()
        for metric in [*COMPARED, *own]:
            close = {"rel": 0.5, "abs": 1e-3} if metric in ROUGH else {"rel": 2e-3, "abs": 1e-5}
            assert theirs[metric] == pytest.approx(ours[metric], **close), (theirs["step"], metric)
    assert sum(line["update/grad_norm"] for line in seen["verl"]) > 0, "some group taught something"
