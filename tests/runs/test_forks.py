"""Forks: a run that starts at another run's snapshot with the weights alone, and checkpoints that are passed over."""

import json
import logging
import os
from contextlib import closing
from dataclasses import replace
from threading import Event
from unittest import mock

import pytest

from siri.cli.training import fork_overrides
from siri.config import RunConfig
from siri.engines import open_engine
from siri.errors import InputError
from siri.home import Home
from siri.problems import load_splits
from siri.runs import keys
from siri.runs.advancing import advance
from siri.runs.base_model import base_name, model_files
from siri.runs.chain import Chain, travel
from siri.runs.run import Run
from siri.store.entries import WEIGHTS
from tests.cli.test_cli import run_cli
from tests.conftest import prepare, settle, tiny, weights


def fork(run: Run, name: str, *overrides: str) -> RunConfig:
    """The tiny run from a snapshot of `run`, weights alone."""
    step = run.step_of(name)
    return tiny(f"fork.key={run.keys[step]}", f"fork.step={step}", *overrides)


@pytest.fixture
def trunk(home: Home) -> Run:
    return settle(tiny(), home)


def test_a_fork_trains_the_steps_behind_its_snapshot_and_no_others(trunk: Run) -> None:
    forked = prepare(fork(trunk, "c1-low"), trunk.home)
    reports = list(advance(forked, 16))
    assert [report.step for report in reports] == list(range(5, 17))
    assert [report.metrics["rollout/budget"] for report in reports] == forked.config.schedule.budgets[4:]


def test_a_fork_starts_from_the_same_weights_without_optimizer_or_state(trunk: Run) -> None:
    forked = prepare(fork(trunk, "c1-low"), trunk.home)
    theirs, ours = trunk.snapshot("c1-low"), forked.snapshot("c1-low")
    assert theirs is not None
    assert ours is not None
    assert ours.manifest.weights_sha256 == theirs.manifest.weights_sha256
    assert ours.manifest.facts == {"carry": "weights-only"}
    assert ours.manifest.parent == theirs.manifest.key
    assert set(theirs.manifest.files) - set(ours.manifest.files) >= {"optimizer.safetensors", "method.json"}


def test_what_was_left_behind_shows_in_every_key_and_in_the_weights(trunk: Run) -> None:
    forked = settle(fork(trunk, "c1-low"), trunk.home)
    assert not set(forked.keys[1:]) & set(trunk.keys)
    assert forked.keys[4] == keys.fork_key(trunk.keys[4])
    assert forked.keys[0] == trunk.keys[0]
    assert forked.id != trunk.id
    assert weights(forked)["c1-high"] != weights(trunk)["c1-high"]


def test_two_forks_of_one_snapshot_share_their_trunk(trunk: Run) -> None:
    settle(fork(trunk, "c1-low"), trunk.home)
    longer = prepare(fork(trunk, "c1-low", "schedule.cycles=3"), trunk.home)
    assert [report.step for report in advance(longer, 20)] == [17, 18, 19, 20]


def test_a_fork_has_the_snapshots_from_its_start_on_and_the_trunk_s_curve_before(trunk: Run) -> None:
    forked = settle(fork(trunk, "c1-high"), trunk.home)
    assert forked.snapshot_steps == {"base": 0, "c1-high": 8, "c2-low": 12, "c2-high": 16}
    lines = [json.loads(line) for line in (forked.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 17))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["fork.step=3"], "^fork.step=3: that snapshot stands at step 4"),
        ([f"fork.key={'a' * 64}"], "^fork.key=aaaaaaaaaaaa: not in the store"),
    ],
)
def test_a_fork_of_nothing_is_one_line(trunk: Run, changes: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        prepare(fork(trunk, "c1-low", *changes), trunk.home)


def test_a_run_without_a_fork_keeps_its_id(trunk: Run) -> None:
    assert tiny("fork.key=''", "fork.step=0") == tiny()
    chain = keys.rl_keys(tiny(), base_name(tiny()), trunk.problems.train.digest, trunk.numerics)
    assert keys.run_id(tiny(), chain) == trunk.id


def test_a_checkpoint_that_the_engine_cannot_load_in_full_is_passed_over_with_a_line(
    trunk: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """As of another number of GPUs: the way starts at the one before, never from the weights alone unasked."""
    longer = prepare(tiny("schedule.cycles=3"), trunk.home)
    unreadable = longer.store.find(longer.keys[16])
    assert unreadable is not None
    steps = []
    with closing(open_engine(longer.config, load_splits(longer.config.problems).train)) as engine:
        chain = Chain(
            store=longer.store,
            keys=longer.keys,
            kept=frozenset(longer.snapshot_steps.values()),
            every=3,
            facts=lambda step: {},
            stop=Event(),
            obstacle=lambda folder: "made by 16 GPUs, here are 8" if folder == unreadable.folder else "",
        )
        with caplog.at_level(logging.WARNING):
            steps = [report.step for report, _ in travel(chain, 20, engine.train)]
    assert steps == list(range(13, 21))
    assert "the checkpoint of step 16 is passed over: made by 16 GPUs, here are 8" in caplog.text


def test_the_model_of_a_snapshot_is_without_the_state_of_any_engine(trunk: Run) -> None:
    entry = trunk.snapshot("c1-low")
    assert entry is not None
    files = dict.fromkeys([*entry.manifest.files, "state.verl.model_world_size_1_rank_0.pt", "state.verl.json"], "")
    stuffed = replace(entry, manifest=replace(entry.manifest, files=files))
    assert model_files(stuffed) == sorted([WEIGHTS, "config.json"])


def test_the_command_line_names_a_fork_by_run_and_snapshot(trunk: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with mock.patch.dict(os.environ):  # a command uses its work folder from then on
        found = fork_overrides(f"{trunk.name}:c1-low", "weights", trunk.home.root)
    assert found == [f"fork.key={trunk.keys[4]}", "fork.step=4"]
    assert fork_overrides(None, None, None) == []
    for words in (["--from", "laptop:c1-low"], ["--carry", "weights"], ["--from", "laptop:c1-low", "--carry", "all"]):
        assert run_cli("train", "laptop", *words) == 2
        assert "--from needs --carry weights" in capsys.readouterr().err
