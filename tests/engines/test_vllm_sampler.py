"""The vLLM sampler without vLLM: what is refused at once, what it lays out, and a child that ends too early."""

from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from siri.config import RunConfig, load
from siri.engine import SampleRequest
from siri.engines.local.policy import OPTIMIZER
from siri.engines.vllm.sampler import VllmSampler, in_order, link_model
from siri.errors import InputError
from siri.home import Home
from siri.problems import load_splits
from tests.conftest import prepare
from tests.engines.test_local_engine import TINY


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return load("laptop", [*TINY, "evaluation.sampler=vllm"])


@pytest.fixture(scope="module")
def model(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the local engine's base."""
    base = prepare(config, Home(tmp_path_factory.mktemp("vllm"))).snapshot("base")
    assert base is not None
    return base.folder


def request_of(config: RunConfig, budget: int) -> SampleRequest:
    return SampleRequest(load_splits(config.problems).dev.problems, 2, budget, 0.6, 0)


def test_vllm_gets_a_snapshot_s_files_without_the_optimizer_s(tmp_path: Path) -> None:
    """It takes every safetensors file of a folder for weights."""
    (tmp_path / "snapshot").mkdir()
    for name in ("model.safetensors", OPTIMIZER, "config.json"):
        (tmp_path / "snapshot" / name).write_text(name)
    linked = link_model(tmp_path / "snapshot", tmp_path / "model")
    assert {path.name: path.read_text() for path in linked.iterdir()} == {
        name: name for name in ("model.safetensors", "config.json")
    }


def test_answers_are_passed_on_in_the_order_of_the_problems_as_soon_as_they_can_be() -> None:
    pulled = []

    def answers() -> Iterator[dict[str, Any]]:
        for place in (1, 0, 3, 2):
            pulled.append(place)
            yield {"place": place}

    found = in_order(answers())
    assert [next(found)["place"], next(found)["place"]] == [0, 1]
    assert pulled == [1, 0]
    assert [answer["place"] for answer in found] == [2, 3]


def test_a_budget_beyond_what_the_model_reads_is_one_line(config: RunConfig, model: Path) -> None:
    with (
        closing(VllmSampler(config)) as sampler,
        pytest.raises(InputError, match=r"^evaluation.budget=250: the model reads 256 tokens at most, and the longest"),
    ):
        next(sampler.sample(model, request_of(config, 250)))


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here: `make test` runs this without it")
def test_a_child_that_ends_too_early_is_an_error_with_its_last_words(config: RunConfig, model: Path) -> None:
    with (
        closing(VllmSampler(config)) as sampler,
        pytest.raises(RuntimeError, match=r"(?s)^vLLM ended with code 1:.*No module named 'vllm'"),
    ):
        next(sampler.sample(model, request_of(config, 20)))
