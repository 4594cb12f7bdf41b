"""vLLM's CPU build as a server: siri asks it as any OpenAI-compatible one, and gets the ids of what it wrote."""

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

pytest.importorskip("vllm", reason="vLLM is not installed here: `make test-vllm` runs this")
pytest.importorskip("openai", reason="openai is not installed here: `make test-vllm` runs this")

from siri.engine import SampleRequest
from siri.engines.local.pretrained import load_pretrained
from siri.engines.server.engine import ServerEngine
from siri.problems import Problem, ProblemSet, decode_responses
from siri.rollouts import RolloutBatch
from siri.runs.models import served_model
from tests.engines.test_pretrained import llama, word_tokenizer
from tests.upped import wait_until
from tests.verl.vllm_cpu import use_vllm_cpu

pytestmark = pytest.mark.timeout(1500)

PROBLEMS = (Problem("a", "w1 w2 w3", "7"), Problem("b", "w4 w5", "8"))
BUDGET = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with heads of 32, the smallest that vLLM has on a CPU."""
    made = tmp_path_factory.mktemp("served") / "tiny"
    torch.manual_seed(0)
    config = llama(hidden_size=128, bos_token_id=1, eos_token_id=2, pad_token_id=0, max_position_embeddings=128)
    AutoModelForCausalLM.from_config(config).save_pretrained(made)
    tokenizer = word_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message.content + ' ' }}{% endfor %}"
    tokenizer.save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    before = dict(os.environ)
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[2]))
    use_vllm_cpu(folder.parent)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--port", str(port)]
    command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--max-model-len", "128", "--enforce-eager"]
    with (folder.parent / "log.txt").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            health = f"http://127.0.0.1:{port}/health"
            wait_until("does vLLM answer", lambda: answers(health) or server.poll() is not None, 900)
            assert server.poll() is None, (folder.parent / "log.txt").read_text()[-3000:]
            os.environ["SIRI_SERVER_URL"] = f"http://127.0.0.1:{port}/v1"
            yield os.environ["SIRI_SERVER_URL"]
        finally:
            server.terminate()
    os.environ.clear()
    os.environ.update(before)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def ask(temperature: float, *overrides: str) -> tuple[list[RolloutBatch], dict[str, object]]:
    config = served_model("tiny", "", ["x.jsonl"], [f"evaluation.budget={BUDGET}", *overrides])
    engine = ServerEngine(config, ProblemSet("none", ()))
    with closing(engine):
        return list(engine.sample(Path(), SampleRequest(PROBLEMS, 4, BUDGET, temperature, seed=0))), engine.numerics()


@pytest.mark.parametrize("template", ["chat", "plain"])
def test_vllm_tells_the_ids_of_what_it_wrote(template: str, address: str, folder: Path) -> None:
    batches, told = ask(1.0, f"problems.template={template}")
    tokenizer = load_pretrained(folder, "cpu", torch.float32).tokenizer
    assert (told["served_by"], str(told["server_version"])[:4]) == ("vllm", "0.31")
    for batch in batches:
        rows = [row[:length] for row, length in zip(batch.tokens.tolist(), batch.lengths.tolist(), strict=True)]
        assert [text.split() for text in batch.texts] == [text.split() for text in decode_responses(rows, tokenizer)]
        assert batch.finished.tolist() == [row[-1] == 2 for row in rows]
        assert all(len(row) == BUDGET for row, done in zip(rows, batch.finished.tolist(), strict=True) if not done)
        assert len(set(batch.texts)) > 1


def test_equal_seeds_give_equal_responses(address: str) -> None:
    assert [batch.texts for batch in ask(1.0)[0]] == [batch.texts for batch in ask(1.0)[0]]
