"""The local engine: killed and restarted bit for bit, blind to its micro-batches, with users' models in and out."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from siri.asking import step_of
from siri.config import RunConfig, load
from siri.engine import SampleRequest
from siri.engines.local.engine import LocalEngine
from siri.engines.local.stepper import LocalStepper
from siri.errors import InputError
from siri.home import Home
from siri.methods import METHODS
from siri.problems import load_splits, problems_of_step
from siri.runs import advancing, base_model, exporting, run
from tests.engine_case import EngineCase
from tests.odd import ODD

TINY = [
    "model.shape.width=16",
    "model.shape.heads=2",
    "model.shape.layers=2",
    "model.shape.feed_forward=32",
    "model.warmup.steps=12",
    "model.warmup.batch_size=4",
    "problems.train_size=64",
    "problems.dev_size=8",
    "problems.test_size=8",
    "schedule.max_budget=24",
    "schedule.min_budget=12",
    "schedule.cycle_steps=8",
    "schedule.cycles=1",
    "rollout.batch_size=4",
    "rollout.group_size=4",
    "checkpoint_every=3",
]


@pytest.fixture(autouse=True, scope="module")
def _every_step_teaches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METHODS, "siri", ODD)
        yield


def settle(home: Path, *overrides: str) -> run.Run:
    """Make a tiny run to its end, in this process."""
    config = load("laptop", [*TINY, *overrides])
    list(base_model.make_base(config, Home(home)))
    opened = run.create_run(config, Home(home))
    list(advancing.advance(opened, config.schedule.total_steps))
    return opened


def weights(opened: run.Run) -> list[str]:
    """sha256 of the weights of every snapshot, the base first."""
    found = [opened.snapshot(name) for name in opened.snapshot_steps]
    return [entry.manifest.weights_sha256 for entry in found if entry is not None]


def kill_at(line: str, home: Path, overrides: Sequence[str]) -> None:
    """Run the driver until it prints a line, then kill it."""
    command = [sys.executable, "-m", "tests.drive_local", str(home), *TINY, *overrides]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for printed in child.stdout:
            if printed.strip() == line:
                child.kill()
                break
        else:
            pytest.fail(f"the driver ended before it printed {line!r}")


class TestLocalEngine(EngineCase):
    """What every engine passes."""

    @pytest.fixture(scope="class")
    @classmethod
    def config(cls) -> RunConfig:
        return load("laptop", TINY)


class TestLocalEngineOnTorch(EngineCase):
    """The same with torch's operators, which the recipe does not name."""

    @pytest.fixture(scope="class")
    @classmethod
    def config(cls) -> RunConfig:
        return load("laptop", [*TINY, "engine.kernels=torch"])


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> run.Run:
    """The tiny run, made without a break."""
    return settle(tmp_path_factory.mktemp("straight"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["warmup 1", "warmup 7", "warmup 12", "step 1", "step 3", "step 4", "step 6", "step 8"]
)
def test_weights_after_a_kill_and_a_restart_are_those_of_a_straight_run(
    line: str, straight: run.Run, tmp_path: Path
) -> None:
    kill_at(line, tmp_path, [])
    assert weights(settle(tmp_path)) == weights(straight)


def test_training_changes_the_weights_at_every_snapshot(straight: run.Run) -> None:
    assert len(set(weights(straight))) == 3


def test_a_second_seed_stands_on_the_same_base(straight: run.Run) -> None:
    other = settle(straight.home.root, "seed=1")
    assert weights(other)[0] == weights(straight)[0]
    assert weights(other)[1:] != weights(straight)[1:]


def test_another_base_seed_is_another_base(straight: run.Run) -> None:
    other = settle(straight.home.root, "model.base_seed=1")
    assert weights(other)[0] != weights(straight)[0]


def gradients(opened: run.Run, config: RunConfig) -> dict[str, torch.Tensor]:
    """The gradient of one step's first minibatch under a config's micro-batches."""
    stepper = LocalStepper(config)
    base = opened.snapshot("base")
    assert base is not None
    stepper.load(base.folder)
    problems = problems_of_step(opened.problems.train.problems, 0, 1, 4)
    batch = stepper.sample(problems, [24] * 4, 1)
    made_up = torch.linspace(-1, 1, len(batch.texts))  # an untrained model is never right
    caught: dict[str, torch.Tensor] = {}

    def catch(rate: float, number: int) -> float:
        caught.update({name: p.grad.clone() for name, p in stepper.policy.parameters().items() if p.grad is not None})
        stepper.policy.optimizer.zero_grad()
        return 0.0

    stepper.policy.step = catch  # type: ignore[method-assign]
    stepper.update(batch, made_up, 1)
    return caught


@pytest.mark.parametrize("aggregation", ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean"])
def test_the_gradient_does_not_depend_on_the_micro_batch_size(straight: run.Run, aggregation: str) -> None:
    overrides = [*TINY, f"method.loss_aggregation={aggregation}", "method.minibatches=1"]
    small = gradients(straight, load("laptop", [*overrides, "engine.micro_batch_tokens=40"]))
    large = gradients(straight, load("laptop", [*overrides, "engine.micro_batch_tokens=100000"]))
    assert small.keys() == large.keys()
    for name, gradient in large.items():
        scale = max(float(gradient.abs().max()), 1e-6)
        assert float((small[name] - gradient).abs().max()) / scale < 1e-5, name


def test_groups_without_advantage_stay_in_the_denominator(straight: run.Run) -> None:
    config = load("laptop", [*TINY, "method.minibatches=1"])
    stepper = LocalStepper(config)
    base = straight.snapshot("base")
    assert base is not None
    stepper.load(base.folder)
    problems = problems_of_step(straight.problems.train.problems, 0, 1, 4)
    batch = stepper.sample(problems, [24] * 4, 1)
    advantages = torch.zeros(16)
    advantages[:4] = torch.tensor([1.0, -1.0, 0.5, -0.5])
    loss = stepper.update(batch, advantages, 1)["update/loss"]
    # on policy the ratio is 1, so a token's loss is −A: the mean over all tokens of the batch
    expected = -float((advantages * batch.lengths).sum() / batch.lengths.sum())
    assert loss == pytest.approx(expected, abs=1e-5)


def test_the_kl_is_a_mean_over_the_tokens_that_are_trained_on(straight: run.Run) -> None:
    stepper = LocalStepper(load("laptop", [*TINY, "method.minibatches=1"]))
    base = straight.snapshot("base")
    assert base is not None
    stepper.load(base.folder)
    batch = stepper.sample(problems_of_step(straight.problems.train.problems, 0, 1, 4), [24] * 4, 1)
    advantages = torch.zeros(16)
    advantages[:4] = torch.tensor([1.0, -1.0, 0.5, -0.5])
    surer = replace(batch, logprobs=batch.logprobs + 0.5 * batch.mask)  # as if the old policy had been surer of each
    assert stepper.update(surer, advantages, 1)["update/kl"] == pytest.approx(0.5, abs=1e-4)


def test_no_step_is_taken_when_no_group_teaches(straight: run.Run) -> None:
    stepper = LocalStepper(load("laptop", TINY))
    base = straight.snapshot("base")
    assert base is not None
    stepper.load(base.folder)
    before = {name: p.detach().clone() for name, p in stepper.policy.parameters().items()}
    problems = problems_of_step(straight.problems.train.problems, 0, 1, 4)
    batch = stepper.sample(problems, [24] * 4, 1)
    step = step_of(stepper.config, 1)
    rewards = METHODS["grpo"].rewards(replace(batch, verdicts=("wrong",) * 16), {}, step).rewards
    stepper.update(batch, METHODS["grpo"].advantages(rewards, batch, step), 1)
    assert all(torch.equal(before[name], p) for name, p in stepper.policy.parameters().items())


def test_a_snapshot_exports_as_a_folder_that_transformers_loads(straight: run.Run, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    exporting.export(straight, "c1-high", tmp_path / "exported")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "exported")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    stepper = LocalStepper(straight.config)
    entry = straight.snapshot("c1-high")
    assert entry is not None
    stepper.load(entry.folder)
    ids = torch.tensor([tokenizer.encode("<bos> A *9 +8 ; 8 <think> A *9 +8 3")])
    ours = stepper.policy.loaded.model(ids, torch.arange(ids.shape[1]))
    assert float((model(ids).logits[0] - ours).detach().abs().max()) < 2e-5
    with pytest.raises(InputError, match="there is something already"):
        exporting.export(straight, "c1-high", tmp_path / "exported")


def test_an_export_holds_the_model_alone_whatever_a_killed_one_has_left(straight: run.Run, tmp_path: Path) -> None:
    (tmp_path / ".exported.part").mkdir()
    (tmp_path / ".exported.part" / "half").write_text("half")
    exporting.export(straight, "c1-low", tmp_path / "exported")
    names = {path.name for path in (tmp_path / "exported").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not names & {"half", "optimizer.safetensors", "steps.jsonl", "manifest.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]


def test_an_export_that_cannot_be_written_is_one_line_and_leaves_nothing(straight: run.Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"^folder=.*/file/out: cannot be written: Not a directory$"):
        exporting.export(straight, "c1-low", tmp_path / "file" / "out")


def test_an_export_onto_a_full_disk_is_one_line_and_leaves_nothing(
    straight: run.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(source: Path, target: Path) -> None:
        target.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(base_model.shutil, "copyfile", fill)
    with pytest.raises(InputError, match=r"^disk full: "):
        exporting.export(straight, "c1-low", tmp_path / "exported")
    assert list(tmp_path.iterdir()) == []


def test_a_users_model_and_problems_train(straight: run.Run, tmp_path: Path) -> None:
    exporting.export(straight, "base", tmp_path / "model")
    rows = "".join(f'{{"question": "A *{a} +1 ; {v}", "answer": "3"}}\n' for a in range(1, 10) for v in range(11))
    (tmp_path / "mine.jsonl").write_text(rows)
    opened = settle(
        tmp_path / "home",
        f"model.base={tmp_path / 'model'}",
        f"problems.source={tmp_path / 'mine.jsonl'}",
        "problems.grader=answer",
    )
    assert weights(opened)[0] == weights(straight)[0]
    assert len(set(weights(opened))) == 3
    assert len((opened.folder / "metrics.jsonl").read_text().splitlines()) == 8


def test_an_evaluation_batch_has_random_numbers_of_its_own(straight: run.Run) -> None:
    engine = LocalEngine(
        load("laptop", [*TINY, "engine.kernels=torch", "engine.sample_rows=8"]), straight.problems.train
    )
    base = straight.snapshot("base")
    assert base is not None
    same = (straight.problems.dev.problems[0],) * 4
    request = SampleRequest(same, samples=4, budget=24, temperature=1.0, seed=0)
    batches = list(engine.sample(base.folder, request))
    assert [len(batch.texts) for batch in batches] == [8, 8]
    assert batches[0].texts != batches[1].texts
    assert [batch.texts for batch in engine.sample(base.folder, request)] == [batch.texts for batch in batches]


@pytest.mark.parametrize("kernels", ["torch", "compiled"])
def test_an_evaluation_s_texts_do_not_depend_on_its_batches(straight: run.Run, kernels: str) -> None:
    base = straight.snapshot("base")
    assert base is not None
    request = SampleRequest(straight.problems.dev.problems[:6], samples=4, budget=24, temperature=1.0, seed=0)
    texts = []
    for rows in (4, 8, 100):
        config = load("laptop", [*TINY, f"engine.sample_rows={rows}", f"engine.kernels={kernels}"])
        engine = LocalEngine(config, straight.problems.train)
        texts.append([text for batch in engine.sample(base.folder, request) for text in batch.texts])
    assert texts[0] == texts[1] == texts[2]


def test_advantages_of_tokens_and_of_responses_make_the_same_step(straight: run.Run) -> None:
    base = straight.snapshot("base")
    assert base is not None
    found = []
    for by_token in (False, True):
        stepper = LocalStepper(load("laptop", TINY))
        stepper.load(base.folder)
        batch = stepper.sample(problems_of_step(straight.problems.train.problems, 0, 1, 4), [24] * 4, 1)
        advantages = torch.linspace(-1, 1, len(batch.texts))
        stepper.update(batch, advantages[:, None] * batch.mask if by_token else advantages, 1)
        found.append([parameter.detach().clone() for parameter in stepper.policy.parameters().values()])
    assert all(map(torch.equal, *found))


def test_splits_are_the_same_for_every_reader() -> None:
    settings = load("laptop", TINY).problems
    assert load_splits(settings).train.digest == load_splits(settings.model_copy()).train.digest


def test_small_updates_are_not_rounded_away_in_bfloat16(straight: run.Run) -> None:
    config = load(
        "laptop",
        [
            *TINY,
            "engine.dtype=bfloat16",
            "engine.kernels=torch",
            "optimizer.learning_rate=1e-6",
            "optimizer.warmup_steps=0",
        ],
    )
    base = straight.snapshot("base")
    assert base is not None
    stepper = LocalStepper(config)
    stepper.load(base.folder)
    before = {name: parameter.detach().clone() for name, parameter in stepper.policy.parameters().items()}
    batch = stepper.sample(problems_of_step(straight.problems.train.problems, 0, 1, 4), [24] * 4, 1)
    stepper.update(batch, torch.linspace(-1, 1, len(batch.texts)), 1)
    after = stepper.policy.parameters()
    moved = sum(int((after[name] != before[name]).sum()) for name in before)
    assert {parameter.dtype for parameter in after.values()} == {torch.float32}
    assert moved > 0.9 * sum(tensor.numel() for tensor in before.values())


def test_bfloat16_is_another_arithmetic_and_says_so_in_the_keys(straight: run.Run) -> None:
    config = load("laptop", [*TINY, "engine.dtype=bfloat16", "engine.kernels=torch"])
    with closing(LocalEngine(config, straight.problems.train)) as engine:
        assert engine.numerics()["dtype"] == "bfloat16 over float32"


def test_a_gradient_that_is_not_finite_is_one_line_and_changes_nothing(straight: run.Run) -> None:
    base = straight.snapshot("base")
    assert base is not None
    stepper = LocalStepper(straight.config)
    stepper.load(base.folder)
    before = {name: parameter.detach().clone() for name, parameter in stepper.policy.parameters().items()}
    batch = stepper.sample(problems_of_step(straight.problems.train.problems, 0, 1, 4), [24] * 4, 7)
    advantages = torch.full((len(batch.texts),), float("inf"))
    with pytest.raises(InputError, match=r"optimizer\.learning_rate=.*: step 7 diverged, its gradient is (nan|inf)"):
        stepper.update(batch, advantages, 7)
    assert all(torch.equal(before[name], parameter) for name, parameter in stepper.policy.parameters().items())


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_the_same_weights_under_another_config_or_tokenizer_are_another_base(
    straight: run.Run, tmp_path: Path, file: str
) -> None:
    exporting.export(straight, "c1-low", tmp_path / "model")
    first = opened_on(tmp_path / "model", tmp_path / "home")
    path = tmp_path / "model" / file
    changed = json.loads(path.read_text())
    if file == "config.json":
        changed["rms_norm_eps"] = 0.001
    else:
        changed["added_tokens"][0]["rstrip"] = True
    path.write_text(json.dumps(changed))
    second = opened_on(tmp_path / "model", tmp_path / "home")
    assert first.base != second.base
    assert weights_of_base(first) == weights_of_base(second)


def test_which_library_wrote_a_base_does_not_name_it(straight: run.Run, tmp_path: Path) -> None:
    exporting.export(straight, "c1-low", tmp_path / "model")
    (tmp_path / "model" / ".cache").mkdir()
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"transformers_version": "4.0.0"}))
    first = opened_on(tmp_path / "model", tmp_path / "home")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"transformers_version": "5.0.0"}))
    assert opened_on(tmp_path / "model", tmp_path / "home").base == first.base


def opened_on(folder: Path, home: Path) -> run.Run:
    """A tiny run on a user's model folder, its base in the store."""
    config = load("laptop", [*TINY, f"model.base={folder}"])
    list(base_model.make_base(config, Home(home)))
    return run.create_run(config, Home(home))


def weights_of_base(opened: run.Run) -> str:
    entry = opened.snapshot("base")
    assert entry is not None
    return entry.manifest.weights_sha256
