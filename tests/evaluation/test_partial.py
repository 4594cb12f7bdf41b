"""An evaluation that is stopped or killed goes on where it was, to the same bits."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from siri import progress
from siri.engine import SampleRequest
from siri.engines.scripted import ScriptedEngine
from siri.errors import InputError
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure, restart
from siri.evaluation.partial import PART, Partial
from siri.home import Home
from siri.rollouts import RolloutBatch
from siri.runs.run import Run
from tests.conftest import settle, tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The samples of c1-high on dev, in one go."""
    evaluation = Evaluation(settle(tiny("schedule.cycles=1"), Home(tmp_path_factory.mktemp("whole"))), "c1-high", "dev")
    list(measure(evaluation))
    return evaluation.samples()


@pytest.fixture
def run(home: Home) -> Run:
    return settle(tiny("schedule.cycles=1"), home)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first problem of every request that reaches the engine."""
    firsts: list[int] = []
    sample = ScriptedEngine.sample

    def noted(self: ScriptedEngine, model: Path, request: SampleRequest) -> Iterator[RolloutBatch]:
        firsts.append(request.first)
        return sample(self, model, request)

    monkeypatch.setattr(ScriptedEngine, "sample", noted)
    return firsts


def parts_of(evaluation: Evaluation) -> list[Path]:
    return sorted((evaluation.store.root / "scratch").glob(f"evaluation:{evaluation.key}/*"))


def stop_after(evaluation: Evaluation, responses: int) -> None:
    way = measure(evaluation)
    assert responses in way
    way.close()


@pytest.mark.parametrize("hold", [32, 64, 128])
def test_a_killed_evaluation_goes_on_behind_what_was_sampled_to_the_same_samples(
    hold: int, run: Run, whole: pd.DataFrame, asked: list[int]
) -> None:
    command = [sys.executable, "-m", "tests.evaluation.drive_evaluation", str(run.home.root), "c1-high", str(hold)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        while child.stdout.readline() != f"responses {hold}\n":
            assert child.poll() is None
        child.kill()
    evaluation = Evaluation(run, "c1-high", "dev")
    assert len(parts_of(evaluation)) == hold // 32
    assert list(measure(evaluation)) == list(range(hold, 129, 32))
    assert asked == ([hold // 4] if hold < 128 else [])
    pd.testing.assert_frame_equal(evaluation.samples(), whole)
    assert parts_of(evaluation) == []


def test_a_stopped_evaluation_goes_on(run: Run, whole: pd.DataFrame, asked: list[int]) -> None:
    evaluation = Evaluation(run, "c1-high", "dev")
    stop_after(evaluation, 64)
    assert evaluation.find() is None
    assert list(measure(evaluation)) == [64, 96, 128]
    assert asked == [0, 16]
    pd.testing.assert_frame_equal(evaluation.samples(), whole)


@pytest.mark.parametrize("damage", ["cut", "gone", "of another evaluation", "something else", "unfinished"])
def test_a_damaged_part_and_what_stands_behind_it_are_sampled_again(
    damage: str, run: Run, whole: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    evaluation = Evaluation(run, "c1-high", "dev")
    stop_after(evaluation, 96)
    second = parts_of(evaluation)[1]
    if damage == "cut":
        second.write_bytes(second.read_bytes()[:-9])
    elif damage == "gone":
        second.unlink()
    elif damage == "of another evaluation":
        other = Evaluation(run, "c1-high", "test")
        stop_after(other, 64)
        second.unlink()
        parts_of(other)[1].rename(second.parent / parts_of(other)[1].name)
    elif damage == "something else":
        second.unlink()
        second.mkdir()
    else:
        second.rename(second.with_name(f".{second.name}"))
    assert list(measure(evaluation)) == [32, 64, 96, 128]
    pd.testing.assert_frame_equal(evaluation.samples(), whole)
    assert "removed" in caplog.text


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("temperature", 1.0, r"temperature 0\.6, here 1\.0"),
        ("budget", 50, r"budget 72, here 50"),
        ("samples", 2, r"samples 4, here 2"),
        ("top_p", 0.9, r"top_p 1\.0, here 0\.9"),
        ("suffix", "Think.", r"prompt\.suffix '.*', here 'Think\.'"),
        ("seed", 7, r"seed 0, here 7"),
    ],
)
def test_what_was_left_under_other_settings_is_refused_by_name_until_it_is_restarted(
    setting: str, value: object, told: str, run: Run, asked: list[int]
) -> None:
    begun = Evaluation(run, "c1-high", "dev")
    stop_after(begun, 64)
    evaluation = Evaluation(
        run.evaluated_under(run.config.evaluation.model_copy(update={setting: value})), "c1-high", "dev"
    )
    with pytest.raises(
        InputError, match=rf"^snapshot=c1-high: its evaluation on dev was begun otherwise \({told}\); .*"
    ):
        list(measure(evaluation))
    assert asked == [0], "it is refused before anything is sampled"
    assert len(parts_of(begun)) == 2
    list(measure(replace(evaluation, benchmark="test")))
    list(measure(replace(evaluation, snapshot="c1-low")))
    restart(evaluation)
    assert parts_of(begun) == []
    list(measure(evaluation))
    assert evaluation.find() is not None
    assert begun.find() is None


def test_other_problems_under_one_name_are_refused_by_their_digests(run: Run, asked: list[int], tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    lines = [json.dumps({"question": f"({n} + 1) mod 10", "answer": str(n + 1)}) + "\n" for n in range(20)]
    file.write_text("".join(lines))
    begun = Evaluation(run, "c1-high", str(file))
    stop_after(begun, 32)
    file.write_text("".join(lines[1:]))
    other = Evaluation(run, "c1-high", str(file))
    with pytest.raises(
        InputError, match=rf"was begun otherwise \(digest {begun.digest[:12]}, here {other.digest[:12]}\)"
    ):
        list(measure(other))
    file.write_text("".join(lines))
    assert next(measure(Evaluation(run, "c1-high", str(file)))) == 32


def test_what_another_process_samples_right_now_is_not_left(run: Run) -> None:
    begun = Evaluation(run, "c1-high", "dev")
    way = measure(begun)
    assert next(way) == 32
    settings = run.config.evaluation.model_copy(update={"temperature": 1.0})
    other = Evaluation(run.evaluated_under(settings), "c1-high", "dev")
    assert list(measure(other)) == [32, 64, 96, 128]
    restart(other)
    assert list(way) == [64, 96, 128]
    assert begun.find() is not None


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all"])
def test_a_damaged_part_of_other_settings_stands_in_nobody_s_way(content: bytes, run: Run) -> None:
    begun = Evaluation(run, "c1-high", "dev")
    stop_after(begun, 64)
    parts_of(begun)[0].write_bytes(content)
    settings = run.config.evaluation.model_copy(update={"temperature": 1.0})
    assert list(measure(Evaluation(run.evaluated_under(settings), "c1-high", "dev"))) == [32, 64, 96, 128]


def test_what_another_version_of_the_sampler_has_begun_is_refused_until_it_is_restarted(
    run: Run, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = Evaluation(run, "c1-high", "dev")
    stop_after(evaluation, 64)
    begun = parts_of(evaluation)
    newer = {"engine": "scripted", "version": 99}
    monkeypatch.setattr(ScriptedEngine, "numerics", lambda self: newer)
    with pytest.raises(
        InputError, match=r"^snapshot=c1-high: .* on dev was begun .*version \d+, here 99\); .*--restart"
    ):
        list(measure(evaluation))
    assert parts_of(evaluation) == begun, "what is sampled is kept"
    restart(evaluation)
    assert list(measure(evaluation)) == [32, 64, 96, 128]
    assert asked == [0, 16, 0]
    entry = evaluation.find()
    assert entry is not None
    assert entry.manifest.facts["sampled_by"] == newer
    restart(evaluation)
    assert evaluation.find() is not None, "a finished one stays"


def test_parts_have_names_that_tell_their_place_and_sum(run: Run) -> None:
    evaluation = Evaluation(run, "c1-high", "dev")
    stop_after(evaluation, 64)
    names = [PART.fullmatch(part.name) for part in parts_of(evaluation)]
    assert [name and int(name["first"]) for name in names] == [0, 8]
    assert Partial(parts_of(evaluation)[0].parent, [p.id for p in evaluation.asked], 4, {}).read() == parts_of(
        evaluation
    )


def test_without_a_terminal_a_line_now_and_then_tells_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock: Any = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    assert list(progress.count(iter([400, 500, 600]), "base on dev", 1000)) == [400, 500, 600]
    assert capsys.readouterr().err.splitlines() == [
        "base on dev: 500 of 1,000 responses · 0:00:50 left",
        "base on dev: 600 of 1,000 responses · 0:00:40 left",
    ]
