"""`siri evaluate` of models that were not trained here: what is refused before anything is sampled, in one line."""

from pathlib import Path

import pytest

from siri.cli.models import Asked, Served, record_models
from siri.errors import InputError
from siri.home import Home
from tests.cli.test_cli import run_cli


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--server", "http://127.0.0.1:1/v1"], "--server and --model: needs both"),
        (["--model", "x"], "--server and --model: needs both"),
        (["--server", "http://127.0.0.1:1/v1", "--model", "x"], "a model has no problems of its own"),
        (["owner/name", "--benchmark", "test"], "--benchmark test: a model has no problems of its own"),
        (["no-such-model", "--benchmark", "aime24"], "run=no-such-model"),
        (["no-such-run", "seed=1"], "seed=1: of a run that is there only evaluation"),
        (["--server", "http://u:hidden-word@127.0.0.1/v1", "--model", "x", "--benchmark", "FILE"], "a key belongs in"),
        ([], "name a run"),
    ],
)
def test_what_names_no_model_is_one_line(
    words: list[str], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "1", "answer": "1"}\n')
    given = [word.replace("FILE", str(tmp_path / "q.jsonl")) for word in words]
    assert run_cli("evaluate", *given, "--home", str(tmp_path / "home")) == 2
    error = capfd.readouterr().err
    assert said in error
    assert "hidden-word" not in error


def test_words_that_name_no_model_are_left_to_the_runs(tmp_path: Path) -> None:
    asked = Asked(["test"], ["evaluation.samples=3"], Served.of(None, None, None))
    assert record_models(Home(tmp_path), ["laptop", "c1-low"], asked) == ["laptop", "c1-low"]


def test_settings_of_models_are_of_no_run(tmp_path: Path) -> None:
    asked = Asked(["test"], ["problems.system=x"], None)
    with pytest.raises(InputError, match=r"problems.system=x: of a run that is there only evaluation"):
        record_models(Home(tmp_path), ["laptop"], asked)
