"""What is asked often starts fast: neither torch nor MLflow is imported by commands that only look."""

import subprocess
import sys
from pathlib import Path

import pytest

from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.home import Home
from tests.conftest import settle, tiny

HEAVY = ("torch", "mlflow", "prefect", "optuna", "pandas", "transformers", "plotly", "scipy")
SCRIPT = f"""
import sys
from siri.cli import main
sys.argv = ["siri", *sys.argv[1:]]
try:
    main()
except SystemExit as ended:
    code = ended.code
else:
    code = 0
print("imported:", *(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("light") / "home"
    run = settle(tiny("schedule.cycles=1"), Home(home))
    list(measure(Evaluation(run, "c1-high", "test")))
    return home


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["snapshots", "--help"], 0),
        (["train", "--help"], 0),
        (["methods"], 0),
        (["methods", "grpo", "--json"], 0),
        (["snapshots", "list", "--home", "HOME"], 0),
        (["snapshots", "list", "--json", "--home", "HOME"], 0),
        (["runs", "--home", "HOME"], 0),
        (["--version"], 0),
        (["status", "--home", "HOME"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_that_only_looks_imports_no_library_of_training(words: list[str], code: int, trained: Path) -> None:
    words = [str(trained) if word == "HOME" else word for word in words]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stderr.splitlines()[-1].split() == ["imported:"]


@pytest.mark.parametrize("words", [["compare", "laptop", "--json"], ["sync"]], ids=lambda words: words[0])
def test_what_has_been_measured_is_read_without_torch(words: list[str], trained: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words, "--home", str(trained)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not {"torch", "transformers"} & {*done.stderr.splitlines()[-1].split()}
