"""What snapshots keep for going on, in bfloat16 float32 weights beside the model; in the newest alone if asked."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from siri.config import load
from siri.engines.local.engine import LocalEngine
from siri.engines.local.policy import MASTERS, OPTIMIZER
from siri.engines.local.pretrained import load_pretrained
from siri.home import Home
from siri.problems import ProblemSet
from siri.runs.advancing import advance
from tests.conftest import prepare, settle, weights
from tests.engines.test_local_engine import TINY, _every_step_teaches  # noqa: F401
from tests.engines.test_pretrained import llama, write_folder

ROUNDED = (*TINY, "engine.kernels=torch", "engine.dtype=bfloat16", "schedule.cycles=2")


def test_a_bfloat16_snapshot_is_what_is_sampled_from_and_goes_on_from_float32(tmp_path: Path) -> None:
    run = settle(load("laptop", ROUNDED), Home(tmp_path))
    entry = run.snapshot("c2-high")
    assert entry is not None
    model, masters = load_file(entry.folder / "model.safetensors"), load_file(entry.folder / MASTERS)
    assert model.keys() == masters.keys()
    for name, weight in masters.items():
        assert weight.dtype == torch.float32
        assert torch.equal(model[name], weight.to(torch.bfloat16))
    assert any(not torch.equal(model[name].float(), weight) for name, weight in masters.items())


def test_a_bfloat16_run_in_two_parts_has_the_bits_of_one_in_a_piece(tmp_path: Path) -> None:
    whole = settle(load("laptop", ROUNDED), Home(tmp_path / "whole"))
    parts = prepare(load("laptop", ROUNDED), Home(tmp_path / "parts"))
    for last in (4, 5, 11, 16):
        list(advance(parts, last))
    found = weights(parts)
    assert weights(whole) == {name: found[name] for name in weights(whole)}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_only_the_newest_snapshot_keeps_its_state_where_that_is_asked(dtype: str, tmp_path: Path) -> None:
    settings = (*ROUNDED, f"engine.dtype={dtype}")
    kept = settle(load("laptop", settings), Home(tmp_path / "kept"))
    newest = settle(load("laptop", [*settings, "snapshots.state=newest"]), Home(tmp_path / "newest"))
    assert weights(newest) == weights(kept)
    states = {name: (newest.snapshot(name) or pytest.fail(name)).full for name in newest.snapshot_steps}
    assert states == {"base": True, "c1-low": False, "c1-high": False, "c2-low": False, "c2-high": True}
    last = newest.snapshot("c2-high")
    assert last is not None
    assert (last.folder / OPTIMIZER).exists()
    rest = [entry for entry in newest.store.entries() if entry.manifest.key != last.manifest.key]
    assert all(entry.state_size == 0 for entry in rest if entry.manifest.role == "thinned")


def test_a_run_that_keeps_the_newest_state_goes_on_from_there(tmp_path: Path) -> None:
    settings = (*ROUNDED, "snapshots.state=newest")
    parts = prepare(load("laptop", settings), Home(tmp_path / "parts"))
    steps = [report.step for last in (4, 8, 16) for report in advance(parts, last)]
    assert steps == list(range(1, 17))


@pytest.mark.parametrize("own", [True, False])
def test_a_base_keeps_the_number_format_of_its_folder(own: bool, tmp_path: Path) -> None:
    network = write_folder(tmp_path / "model", llama() if own else llama(hidden_act="gelu"))
    network.to(torch.bfloat16).save_pretrained(tmp_path / "model")
    config = load("laptop", [f"model.base={tmp_path / 'model'}", "engine.kernels=torch", "schedule.max_budget=36"])
    LocalEngine(config, ProblemSet("none", ())).make_base(tmp_path / "base")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert '"bfloat16"' in (tmp_path / "base" / "config.json").read_text()
    expected, found = (
        load_pretrained(folder, "cpu", torch.float32).model.state_dict()
        for folder in (tmp_path / "model", tmp_path / "base")
    )
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
