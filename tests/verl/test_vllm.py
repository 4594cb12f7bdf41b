"""vLLM for real, its CPU build: as verl's rollout over two steps, and as the sampler of evaluations; both read the
prompts that the local engine reads. A start takes a minute on two idle cores, so the tests share one of each."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from statistics import fmean

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("vllm", reason="vLLM is not installed here: `make test-vllm` runs this")
pytest.importorskip("verl", reason="verl is not installed here: `make test-vllm` runs this")

from siri.config import RunConfig
from siri.engine import SampleRequest, StepReport
from siri.engines.local import LocalEngine
from siri.engines.local.forward import score
from siri.engines.local.pretrained import load_pretrained
from siri.engines.vllm.sampler import VllmSampler
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.home import Home
from siri.problems import encode_prompt, load_splits, problems_of_step
from siri.rollouts import RolloutBatch
from siri.runs.advancing import advance
from siri.runs.run import Run
from siri.store.entries import WEIGHTS
from tests.conftest import prepare, wait_for
from tests.engine_case import check_batch
from tests.verl.support import left, tiny_verl, use_cpu, wait_until_nothing_is_left
from tests.verl.vllm_cpu import ON_VLLM, use_vllm_cpu

pytestmark = pytest.mark.timeout(1500)

TWO_STEPS = (
    "model.shape.heads=2",  # of 32: vLLM has no smaller ones on a CPU
    "model.warmup.steps=200",
    "optimizer.learning_rate=0.001",  # large: a rollout on the weights of the step before would be found out
    "schedule.min_budget=64",
    "schedule.cycle_steps=4",
    "evaluation.sampler=vllm",
    "evaluation.samples=3",
    "evaluation.budget=150",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A work folder, and the environment in which verl and vLLM find their CPU."""
    before = dict(os.environ)
    folder = tmp_path_factory.mktemp("vllm")
    use_cpu(folder / "budgets.jsonl")
    use_vllm_cpu(folder)
    yield Home(folder / "home")
    os.environ.clear()
    os.environ |= before


@pytest.fixture(scope="module")
def run(home: Home) -> Run:
    return prepare(tiny_verl(*TWO_STEPS, rollout=ON_VLLM), home)


def asked(home: Home) -> list[tuple[tuple[int, ...], int]]:
    """(prompt, most tokens) of every response that vLLM's core was asked for."""
    lines = (home.root.parent / "requests.jsonl").read_text().splitlines()
    return [(tuple(prompt), budget) for prompt, budget in map(json.loads, lines)]


@pytest.fixture(scope="module")
def trained(run: Run) -> list[StepReport]:
    """The reports of the first stage, sampled by vLLM."""
    assert not (run.home.root.parent / "requests.jsonl").exists()
    return list(advance(run, 2))


@pytest.fixture(scope="module")
def requests(home: Home, trained: list[StepReport]) -> list[tuple[tuple[int, ...], int]]:
    """What vLLM was asked for in the two steps, an entry per response."""
    return asked(home)


def test_verl_trains_a_stage_with_vllm_as_its_rollout_and_leaves_the_snapshot(
    run: Run, trained: list[StepReport]
) -> None:
    assert [report.step for report in trained] == [1, 2]
    base, low = run.snapshot("base"), run.snapshot("c1-low")
    assert base is not None
    assert low is not None
    before, after = (load_file(entry.folder / WEIGHTS) for entry in (base, low))
    assert max(float((before[name] - after[name]).abs().max()) for name in before) > 0.001
    assert left() == []


def test_vllm_is_told_the_budgets_of_the_schedule_and_keeps_them(
    run: Run, trained: list[StepReport], requests: list[tuple[tuple[int, ...], int]]
) -> None:
    schedule, size = run.config.schedule, run.config.rollout.batch_size * run.config.rollout.group_size
    assert schedule(1) > schedule(2)
    assert [budget for _, budget in requests] == [schedule(1)] * size + [schedule(2)] * size
    for report in trained:
        assert report.metrics["rollout/budget"] == schedule(report.step)
        assert all(1 <= kept.length <= schedule(report.step) for kept in report.responses)


def test_rollout_and_trainer_agree_on_every_token_before_and_after_an_update(
    home: Home, trained: list[StepReport]
) -> None:
    """verl starts vLLM on made-up weights: to agree, those of the trainer must have got there, at both steps."""
    lines = [json.loads(line) for line in (home.root.parent / "verl.jsonl").read_text().splitlines()]
    told = {line["step"]: line["data"] for line in lines if "training/rollout_probs_diff_max" in line["data"]}
    assert sorted(told) == [1, 2]
    for metrics in told.values():
        assert metrics["training/rollout_probs_diff_valid"] == 1
        assert metrics["training/rollout_probs_diff_max"] < 1e-4


@pytest.fixture(scope="module")
def request_(run: Run) -> SampleRequest:
    """What the run's evaluation asks for."""
    settings = run.config.evaluation
    return SampleRequest(run.problems.dev.problems, 3, 150, settings.temperature, settings.seed)


@pytest.fixture(scope="module")
def by_vllm(run: Run, request_: SampleRequest, trained: list[StepReport]) -> list[RolloutBatch]:
    return sample(VllmSampler(run.config), run, request_)


def sample(sampler: VllmSampler | LocalEngine, run: Run, request: SampleRequest) -> list[RolloutBatch]:
    """The answers of a sampler to a request, from c1-low."""
    low = run.snapshot("c1-low")
    assert low is not None
    with closing(sampler):
        return list(sampler.sample(low.folder, request))


def local(config: RunConfig) -> LocalEngine:
    return LocalEngine(config, load_splits(config.problems).train)


def test_batches_are_whole_groups_in_order_within_the_budget(
    by_vllm: list[RolloutBatch], request_: SampleRequest
) -> None:
    names = [problem.id for problem in request_.problems for _ in range(3)]
    assert [name for batch in by_vllm for name in batch.problem_ids] == names
    for batch in by_vllm:
        assert batch.group_size == 3
        check_batch(batch, 150)
    finished = [done for batch in by_vllm for done in batch.finished.tolist()]
    assert any(finished)
    assert not all(finished)
    assert left() == []


def test_a_response_is_finished_where_its_last_token_is_an_end_token(by_vllm: list[RolloutBatch], run: Run) -> None:
    base = run.snapshot("base")
    assert base is not None
    ends = load_pretrained(base.folder, "cpu", torch.float32).eos_ids
    for batch in by_vllm:
        last = batch.tokens[torch.arange(len(batch.texts)), batch.lengths - 1].tolist()
        assert batch.finished.tolist() == [token in ends for token in last]


def test_the_local_model_gives_vllm_s_tokens_the_same_probabilities(by_vllm: list[RolloutBatch], run: Run) -> None:
    low = run.snapshot("c1-low")
    assert low is not None
    model = load_pretrained(low.folder, "cpu", torch.float32).model
    for batch in by_vllm:
        rows = zip(batch.tokens.tolist(), batch.lengths.tolist(), strict=True)
        with torch.inference_mode():
            ours = score(model, batch.prompts, [row[:length] for row, length in rows], 0.6).logprobs
        torch.testing.assert_close(batch.logprobs, ours * batch.mask, rtol=0.0, atol=1e-3)


def test_local_engine_verl_and_vllm_read_the_same_prompt_ids(
    run: Run,
    requests: list[tuple[tuple[int, ...], int]],
    by_vllm: list[RolloutBatch],
    request_: SampleRequest,
) -> None:
    config = run.config
    torch_batches = sample(local(config), run, request_)
    ours = [prompt for batch in torch_batches for prompt in batch.prompts]
    assert [prompt for batch in by_vllm for prompt in batch.prompts] == ours
    base = run.snapshot("base")
    assert base is not None
    tokenizer = load_pretrained(base.folder, "cpu", torch.float32).tokenizer
    count, size = config.rollout.batch_size, config.rollout.group_size
    for step in (1, 2):
        problems = problems_of_step(run.problems.train, config.seed, step, count)
        prompts = [tuple(encode_prompt(problem, tokenizer, config.problems.template)) for problem in problems]
        step_s = requests[(step - 1) * count * size : step * count * size]
        assert sorted(prompt for prompt, _ in step_s) == sorted(prompts * size)


def test_an_evaluation_gives_a_seed_s_samples_and_says_what_sampled(
    by_vllm: list[RolloutBatch], run: Run, home: Home
) -> None:
    evaluation = Evaluation(run, "c1-low", "dev")
    assert list(measure(evaluation)) == list(range(3, 3 * len(evaluation.problems) + 1, 3))
    entry = evaluation.find()
    assert entry is not None
    told = {"engine": "vllm", "version": 2, "vllm": "0.31.0", "device": "cpu", "dtype": "float32", "tensor_parallel": 1}
    assert entry.manifest.facts["sampler"] == "vllm"
    assert entry.manifest.facts["sampled_by"] == told
    assert {budget for _, budget in asked(home)[-3 * len(evaluation.problems) :]} == {150}
    assert share_alike(evaluation.samples()["text"], texts(by_vllm)) >= 0.95  # batches differ, and so do the last bits
    assert left() == []


def test_temperature_0_is_the_likeliest_response_to_every_problem(run: Run, request_: SampleRequest) -> None:
    greedy = replace(request_, temperature=0.0)
    ours, theirs = sample(VllmSampler(run.config), run, greedy), sample(local(run.config), run, greedy)
    assert share_alike(texts(ours), texts(theirs)) >= 0.95
    assert all(len(set(batch.texts)) == 1 for batch in ours)
    assert not any(batch.logprobs.any() for batch in ours)


EVALUATE = """
import sys
from pathlib import Path
from siri.home import Home
from siri.evaluation.evaluation import Evaluation
from siri.evaluation.measuring import measure
from siri.runs.run import load_run
for done in measure(Evaluation(load_run(Home(Path(sys.argv[1])), sys.argv[2]), "c1-low", "test")):
    print("done", done, flush=True)
"""


def test_kill_9_in_mid_evaluation_leaves_no_process(run: Run, trained: list[StepReport]) -> None:
    command = [sys.executable, "-c", EVALUATE, str(run.home.root), run.id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        wait_for(process, "done 3")
        assert sum(line.startswith("VLLM::") for line in left()) == 2
        process.kill()
    wait_until_nothing_is_left()
    assert Evaluation(run, "c1-low", "test").find() is None


def texts(batches: list[RolloutBatch]) -> list[str]:
    return [text for batch in batches for text in batch.texts]


def share_alike(ours: Iterable[str], theirs: Iterable[str]) -> float:
    """The share of equal texts at equal places."""
    return fmean(a == b for a, b in zip(ours, theirs, strict=True))
