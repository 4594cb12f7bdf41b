"""A trained run, a model of a folder and one behind a server, in one table and on one page."""

import csv
import json
import math
import re
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from dashboards import data
from dashboards.benchmark_formats import ENDINGS
from dashboards.report import write_report
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.evaluation.report import compare
from siri.home import Home
from siri.runs.models import local_model, record_model, served_model
from siri.runs.run import Run
from tests.cli.test_cli import run_cli
from tests.conftest import settle, tiny
from tests.engines.test_pretrained import llama, word_tokenizer
from tests.openai_server import Served, serve

pytest.importorskip("openai")

BUDGET = "evaluation.budget=24"
SAMPLES = "evaluation.samples=4"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Six questions of words that the tiny models know."""
    path = tmp_path_factory.mktemp("problems") / "sums.jsonl"
    path.write_text("".join(json.dumps({"question": f"w{n} w2", "answer": "0"}) + "\n" for n in range(1, 7)))
    return str(path)


@pytest.fixture(scope="module")
def trained(home: Home, benchmark: str) -> Run:
    run = settle(tiny("schedule.cycles=1", BUDGET, SAMPLES), home)
    for name in run.snapshot_steps:
        list(measure(Evaluation(run, name, benchmark)))
    return run


@pytest.fixture(scope="module")
def foreign(home: Home, benchmark: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A model of a folder, whose weights are random."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(llama(bos_token_id=1, eos_token_id=2, pad_token_id=0)).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    settings = [BUDGET, SAMPLES, "problems.template=plain"]
    run = record_model(local_model(str(folder), [benchmark], settings), home)
    list(measure(Evaluation(run, "base", benchmark)))
    return run


@pytest.fixture(scope="module")
def served(home: Home, benchmark: str) -> Run:
    """A model behind a server, right two times out of three."""
    with pytest.MonkeyPatch.context() as patch, serve(Served()) as server:
        patch.setenv("SIRI_SERVER_URL", server.address)
        settings = [BUDGET, SAMPLES, "problems.grader=boxed"]
        run = record_model(served_model("tiny", "served-tiny", [benchmark], settings), home)
        list(measure(Evaluation(run, "base", benchmark)))
    return run


@pytest.fixture
def typed(home: Home, benchmark: str, trained: Run, foreign: Run, served: Run) -> list[str]:
    """`siri compare` of the three, as far as all ways of writing it agree."""
    names = [f"{trained.id}:c1-high", f"{foreign.id}:base", f"{served.id}:base"]
    return [*names, "--benchmark", benchmark, "--home", str(home.root)]


def test_they_stand_side_by_side_only_where_it_is_asked_for(
    typed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("compare", *typed, "--format", "csv") == 2
    assert re.search(r"sums: .* differ in .*; such rows compare with --mixed alone", capsys.readouterr().err)
    assert run_cli("compare", *typed, "--mixed", "--format", "markdown") == 0
    assert "caution: sums: " in capsys.readouterr().out


@pytest.mark.parametrize("ending", [*ENDINGS, "terminal"])
def test_every_format_has_all_rows_and_the_differences_to_a_served_model(
    ending: str, typed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    trained: Run, foreign: Run, served: Run, benchmark: str,
) -> None:  # fmt: skip
    against = f"{served.id}:base"
    out = [] if ending == "terminal" else ["--out", str(tmp_path / f"table{ending}")]
    assert run_cli("compare", *typed, "--mixed", "--published", "siri-1.5b", "--against", against, *out) == 0
    printed = capsys.readouterr().out
    text = printed if ending == "terminal" else ""
    if ending in (".csv", ".parquet"):
        path = tmp_path / f"table{ending}"
        rows = (pd.read_csv(path) if ending == ".csv" else pd.read_parquet(path)).set_index("model")
        own, theirs = (Evaluation(run, "base", benchmark) for run in (foreign, served))
        assert rows.loc[against, "sums_accuracy"] == theirs.report().accuracy.mean
        difference = compare(own.samples(), theirs.samples(), "correct")
        assert rows.loc[f"{foreign.id}:base", "sums_accuracy_difference"] == difference.mean
        assert math.isnan(rows.loc[against, "accuracy_cr"]) or rows.loc[against, "accuracy_cr"] == 0
        assert rows["published"].notna().sum() == 6
        return
    if ending != "terminal":
        text = (tmp_path / f"table{ending}").read_text()
    flat = re.sub(r"[\s\\]+", "", text)
    assert all(name in flat for name in (f"{trained.id}:c1-high", f"{foreign.id}:base", against, "SIRI-high"))
    assert "nan" not in flat.lower()


def test_what_a_server_does_not_tell_is_a_gap_and_no_number(
    served: Run, foreign: Run, benchmark: str, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = data.snapshot_table([foreign, served], benchmark)
    assert table["entropy"].isna().tolist() == [False, True]
    words = ["compare", foreign.id, served.id, "--benchmark", benchmark, "--home", str(home.root)]
    assert run_cli(*words, "--csv", str(tmp_path / "rows.csv"), "--report", str(tmp_path / "page.html")) == 0
    assert "nan" not in capsys.readouterr().out.lower()
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = [row["entropy"] for row in csv.DictReader(file)]
    assert float(rows[0]) > 0
    assert rows[1] == ""
    assert run_cli(*words, "--json") == 0
    assert json.loads(capsys.readouterr().out)[1]["entropy"] is None


def test_the_page_of_a_model_says_that_nothing_was_trained_and_shows_no_training(
    served: Run, foreign: Run, benchmark: str, tmp_path: Path
) -> None:
    page = write_report(served, [foreign], tmp_path / "page.html", benchmark).read_text()
    shown = unescape(re.sub(r"(?s)<(script|style).*?</\1>|<[^>]+>", "", page))
    assert "Nothing was trained here: tiny was measured by the server engine. Beside it: " in shown
    assert "No accuracy by budget: " in shown
    for word in ("was trained by", "During training", "The paper's findings", "trained on", "DeepSeek", "nan"):
        assert word not in shown.partition("Config")[0], word
    assert 'id="figure-by-samples"' in page
    own = write_report(foreign, [], tmp_path / "foreign.html", benchmark).read_text()
    assert 'id="figure-by-budget"' in own
