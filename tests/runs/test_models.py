"""Models that are measured and not trained: recorded by what they are and how they are asked."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from dashboards.data import find_benchmark, snapshot_table
from siri.config import load, validate
from siri.engines import open_engine
from siri.errors import InputError
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.headlines import run_rows
from siri.evaluation.measuring import measure
from siri.home import Home
from siri.problems import ProblemSet
from siri.runs.models import local_model, record_model, served_model
from siri.runs.retention import plan
from siri.runs.run import Run, load_run
from tests.engines.test_pretrained import llama, word_tokenizer
from tests.openai_server import Served, serve

QUESTIONS = [{"question": "w1 w2", "answer": "3"}, {"question": "w4 w5", "answer": "9"}]
SMALL = ("evaluation.samples=3", "evaluation.budget=12")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "tiny-llama"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(llama(bos_token_id=1, eos_token_id=2, pad_token_id=0)).save_pretrained(made)
    tokenizer = word_tokenizer()
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message.content + ' ' }}{% endfor %}{% if short %}{{ 'w7' }}{% endif %}"
    )
    tokenizer.save_pretrained(made)
    return made


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return str(path)


def record(folder: Path, file: str, home: Home, *overrides: str) -> Run:
    return record_model(local_model(str(folder), [file], [*SMALL, "problems.template=plain", *overrides]), home)


def evaluate(run: Run) -> Evaluation:
    evaluation = Evaluation(run, "base", run.config.evaluation.final[0])
    list(measure(evaluation))
    return evaluation


def test_a_model_is_a_run_whose_only_snapshot_is_its_base(folder: Path, file: str, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    run = record(folder, file, home)
    assert run.snapshot_steps == {"base": 0}
    assert run.keys == [run.base]
    assert run.name == f"tiny-llama-{run.id[:6]}"
    assert load_run(home, "tiny-llama").id == record(folder, file, home).id == run.id
    assert [(row["state"], row["step"]) for row in run_rows(home)] == [("model", "0/0")]
    assert plan(home).items == ()


def test_it_is_measured_and_stands_in_the_table_of_runs(folder: Path, file: str, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    runs = [record(folder, file, home), record(folder, file, home, "problems.system=w3")]
    assert runs[0].id != runs[1].id
    for run in runs:
        evaluate(run)
    table = snapshot_table(runs, find_benchmark(runs[0]))
    assert table["run"].tolist() == [run.name for run in runs]
    assert set(table["snapshot"]) == {"base"}
    assert run_rows(home)[0]["tokens"] > 0


def test_the_same_weights_in_another_folder_are_the_same_model(folder: Path, file: str, tmp_path: Path) -> None:
    import shutil

    home, other = Home(tmp_path / "home"), tmp_path / "tiny-llama"
    shutil.copytree(folder, other)
    assert record(folder, file, home).id == record(other, file, home).id


def test_the_folder_may_go_once_the_model_is_recorded(folder: Path, file: str, tmp_path: Path) -> None:
    import shutil

    home, other = Home(tmp_path / "home"), tmp_path / "moved"
    shutil.copytree(folder, other)
    run = record(other, file, home)
    shutil.rmtree(other)
    assert evaluate(load_run(home, run.id)).report().samples == 3


@pytest.mark.parametrize(
    "change", ["problems.system=w3", "problems.template_arguments={short: true}", "problems.template=chat"]
)
def test_another_way_to_ask_is_another_row(change: str, folder: Path, file: str, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    chat = [] if "arguments" not in change else ["problems.template=chat"]
    assert record(folder, file, home, *chat).id != record(folder, file, home, *chat, change).id


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "problems.template_arguments={shrt: true}",
            "problems.template_arguments.shrt: nothing that .* it reads short",
        ),
        ("problems.template_arguments={messages: 1}", "no name that a template can be given"),
        ("problems.template_arguments={short: [1]}", "short: must be true, false, a number or text"),
        ("problems.template_arguments=7", "must be names with values"),
        ("seed=1", "seed=1: of a model only"),
        ("schedule.cycles=2", "of a model only"),
        ("problems.source=laptop", "cycles=0"),
        ("evaluation.budget=64", "the model reads 64 tokens at most"),
    ],
)
def test_what_a_model_cannot_be_asked_is_one_line(
    change: str, said: str, folder: Path, file: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        evaluate(record(folder, file, Home(tmp_path / "home"), "problems.template=chat", change))


def test_a_folder_is_itself_whatever_it_is_called(
    folder: Path, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "laptop")
    monkeypatch.chdir(tmp_path)
    assert local_model("laptop", [file], []).model.base == str(tmp_path / "laptop")
    monkeypatch.chdir(tmp_path / "laptop")
    assert local_model(".", [file], []).recipe == "laptop"


@pytest.mark.parametrize("benchmarks", [[], ["test"], ["dev"]])
def test_a_model_has_no_problems_of_its_own(benchmarks: list[str], folder: Path) -> None:
    with pytest.raises(InputError, match="a model has no problems of its own"):
        local_model(str(folder), benchmarks, [])


@pytest.mark.parametrize(
    "words", [["schedule.cycles=0", "problems.source=none"], ["schedule.cycles=0"], ["problems.source=none"]]
)
def test_a_recipe_without_anything_to_train_is_refused(words: list[str]) -> None:
    with pytest.raises(InputError, match="cycles=0"):
        load("laptop", words)


def test_a_hub_name_is_pinned_to_the_commit_of_its_files(
    folder: Path, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model = tmp_path / "hub" / "models--owner--name"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("a" * 40)
    shutil.copytree(folder, model / "snapshots" / ("a" * 40))
    run = record_model(local_model("owner/name", [file], [*SMALL, "problems.template=plain"]), Home(tmp_path / "home"))
    assert run.config.model.base == f"owner/name@{'a' * 40}"
    assert run.config.recipe == "name"


def test_a_served_model_is_named_by_what_it_is_called_and_not_by_where(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai")
    home = Home(tmp_path / "home")
    with serve(Served(models=("maker/tiny:8b",))) as served:
        monkeypatch.setenv("SIRI_SERVER_URL", served.address)
        run = record_model(served_model("maker/tiny:8b", "", [file], SMALL), home)
        evaluation = evaluate(run)
    other = record_model(served_model("maker/tiny:8b", "second", [file], SMALL), home)
    assert (run.config.recipe, other.config.recipe) == ("tiny-8b", "second")
    assert run.base != other.base
    assert evaluation.samples()["tokens"].isna().all()
    entry = evaluation.find()
    assert entry is not None
    assert entry.manifest.facts["sampled_by"]["served_by"] == "somebody"
    port = served.address.split(":")[2].split("/")[0]
    records = [path for path in home.root.rglob("*.json") if path.is_file()]
    assert records
    assert not any(f":{port}" in path.read_text() for path in records)


def test_a_served_model_does_not_train() -> None:
    pytest.importorskip("openai")
    values = load("laptop").model_dump(mode="json") | {"engine": {"name": "server", "server": {"model": "x"}}}
    with pytest.raises(InputError, match="measured and not trained"):
        open_engine(validate(values), ProblemSet("none", ()))
