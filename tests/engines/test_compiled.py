"""The compiled kernels against torch: `score`, autograd, the torch sampler; and the cache of their code."""

import copy
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from siri.config import EngineSettings, load
from siri.engines.local import kernels
from siri.engines.local.compiled import cache
from siri.engines.local.compiled.kernels import CompiledKernels
from siri.engines.local.compiled.packing import Workspace
from siri.engines.local.engine import LocalEngine, numerics_of
from siri.engines.local.forward import Scores, score
from siri.engines.local.kernels import open_kernels, require_compiled
from siri.engines.local.model import Decoder, ModelShape
from siri.engines.local.pretrained import LoadedModel
from siri.engines.local.sampler import Sampled, sample
from siri.engines.local.stepper import LocalStepper
from siri.engines.local.uniforms import Stream
from siri.errors import InputError
from siri.problems import load_splits, problems_of_step
from tests.engines.test_local_model import GROUPED, LAPTOP, decoder, texts

CLOSE = {"atol": 1e-5, "rtol": 0.0}
SPARING = settings(max_examples=30, deadline=None, derandomize=True)


@st.composite
def shapes(draw: st.DrawFn) -> ModelShape:
    kv_heads = draw(st.integers(1, 3))
    return ModelShape(
        vocabulary=draw(st.integers(5, 70)),
        width=draw(st.integers(3, 40)),
        layers=draw(st.integers(1, 3)),
        heads=kv_heads * draw(st.integers(1, 3)),
        kv_heads=kv_heads,
        head_size=2 * draw(st.integers(1, 11)),
        feed_forward=draw(st.integers(1, 50)),
        context=80,
        attention_bias=draw(st.sampled_from(["none", "qkv", "qkvo"])),
        tied_head=draw(st.booleans()),
    )


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts and responses of a few groups, tokens below 5."""
    token = st.integers(0, 4)
    prompts: list[list[int]] = []
    responses: list[list[int]] = []
    for _ in range(draw(st.integers(1, 4))):
        prompt = draw(st.lists(token, min_size=1, max_size=40))
        for _ in range(draw(st.integers(1, 4))):
            prompts.append(prompt)
            responses.append(draw(st.lists(token, min_size=1, max_size=40)))
    return prompts, responses


def twins(shape: ModelShape, seed: int = 1) -> tuple[Decoder, Decoder, CompiledKernels]:
    """A decoder for torch, a copy, and the kernels over it; no weight is 0 or 1."""
    ours = decoder(shape, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    theirs = copy.deepcopy(ours)
    return ours, theirs, CompiledKernels(theirs)


def weigh(scores: Scores, seed: int = 3) -> torch.Tensor:
    """A loss on log-probabilities and entropies, every token with a weight of its own, some masked."""
    generator = torch.Generator().manual_seed(seed)
    on_logprobs, on_entropies = (torch.randn(scores.logprobs.shape, generator=generator) for _ in range(2))
    mask = torch.rand(scores.logprobs.shape, generator=generator) < 0.8
    return ((scores.logprobs.exp() * on_logprobs + scores.entropies * on_entropies) * mask).sum()


def check_gradients(ours: Decoder, theirs: Decoder) -> None:
    whole = torch.cat(
        [parameter.grad.flatten() for parameter in ours.parameters() if parameter.grad is not None]
    ).norm()
    for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert float((one.grad - other.grad).norm()) <= 1e-5 * float(one.grad.norm() + 0.03 * whole), name


@SPARING
@given(shapes(), batches(), st.sampled_from([1.0, 0.6, 1.7]))
def test_scores_and_gradients_are_torch_s(
    shape: ModelShape, batch: tuple[list[list[int]], list[list[int]]], temperature: float
) -> None:
    ours, theirs, compiled = twins(shape)
    expected, found = score(ours, *batch, temperature), compiled.score(*batch, temperature)
    torch.testing.assert_close(found.logprobs, expected.logprobs, **CLOSE)
    torch.testing.assert_close(found.entropies, expected.entropies, **CLOSE)
    weigh(expected).backward()
    weigh(found).backward()
    check_gradients(ours, theirs)


@pytest.mark.parametrize("shape", [LAPTOP, GROUPED])
def test_gradients_of_several_passes_add_up_as_torch_s_do(shape: ModelShape) -> None:
    ours, theirs, compiled = twins(shape)
    prompts = texts(shape.vocabulary, [20, 20, 7])
    for seed, responses in enumerate(
        (texts(shape.vocabulary, [1, 30, 31]), texts(shape.vocabulary, [33, 2, 32], seed=1))
    ):
        weigh(score(ours, prompts, responses, 1.0), seed).backward()
        weigh(compiled.score(prompts, responses, 1.0), seed).backward()
    check_gradients(ours, theirs)


def test_a_reference_policy_and_a_second_pass_leave_the_first_one_s_gradient_alone() -> None:
    ours, theirs, compiled = twins(LAPTOP)
    _, _, reference = twins(LAPTOP, seed=2)
    prompts, responses = texts(61, [9, 9]), texts(61, [12, 30])
    first = compiled.score(prompts, responses, 1.0)
    second = compiled.score(prompts, texts(61, [40, 3], seed=4), 1.0)
    with torch.no_grad():
        other = reference.score(prompts, responses, 1.0).logprobs
        again = compiled.score(prompts, responses, 1.0).logprobs
    assert torch.equal(first.logprobs, again)
    assert not other.requires_grad
    (weigh(first) + weigh(second) + (first.logprobs - other).square().sum()).backward()
    one, two = score(ours, prompts, responses, 1.0), score(ours, prompts, texts(61, [40, 3], seed=4), 1.0)
    (weigh(one) + weigh(two) + (one.logprobs - other).square().sum()).backward()
    check_gradients(ours, theirs)


def test_a_pass_is_gone_through_backwards_once_and_on_the_weights_that_it_saw() -> None:
    _, theirs, compiled = twins(GROUPED)
    loss = weigh(compiled.score([[1]], [[2, 3]], 1.0))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="has been used"):
        loss.backward()
    loss = weigh(compiled.score([[1]], [[2, 3]], 1.0))
    with torch.no_grad():
        theirs.norm.mul_(2)
    with pytest.raises(RuntimeError, match="weights have changed"):
        loss.backward()
    theirs.norm.data = theirs.norm.data.clone()
    with pytest.raises(RuntimeError, match="no longer lies"):
        compiled.score([[1]], [[2, 3]], 1.0)


Loss = Callable[[Scores, torch.Tensor], torch.Tensor]
SIZE = 3
"""Responses of a group in the losses below."""


def fixed(shape: torch.Size, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def token_loss(scores: Scores, mask: torch.Tensor) -> torch.Tensor:
    """A clipped ratio with an advantage per token, an entropy bonus, and a penalty for leaving a reference."""
    advantages, shift = fixed(mask.shape, 1), 0.3 * fixed(mask.shape, 2)
    ratio = (scores.logprobs - scores.logprobs.detach() + shift).exp()
    clipped = torch.maximum(-ratio * advantages, -ratio.clamp(0.8, 1.28) * advantages)
    apart = scores.logprobs.detach() + fixed(mask.shape, 3) - scores.logprobs
    return ((clipped - 0.01 * scores.entropies + 0.1 * (apart.exp() - apart - 1)) * mask).sum() / mask.sum()


def response_loss(scores: Scores, mask: torch.Tensor) -> torch.Tensor:
    """One ratio per response, from the mean over its tokens."""
    means = (scores.logprobs * mask).sum(1) / mask.sum(1).clamp(min=1)
    return (means.exp() * fixed(means.shape, 1)).mean()


def group_loss(scores: Scores, mask: torch.Tensor) -> torch.Tensor:
    """What needs whole groups: each response's entropy and log-probability against its group's mean."""
    told = ((scores.entropies + scores.logprobs) * mask).sum(1).view(-1, SIZE)
    return (told - told.mean(1, keepdim=True)).square().mean()


def entropy_loss(scores: Scores, mask: torch.Tensor) -> torch.Tensor:
    """Entropies alone."""
    return (scores.entropies * mask).sum()


def logprob_loss(scores: Scores, mask: torch.Tensor) -> torch.Tensor:
    """Log-probabilities alone."""
    return (scores.logprobs * mask).sum()


@pytest.mark.parametrize("loss", [token_loss, response_loss, group_loss, entropy_loss, logprob_loss])
@pytest.mark.parametrize("lengths", [[5, 1, 30], [1, 1, 1]])
def test_gradients_of_the_losses_that_methods_make_are_torch_s(loss: Loss, lengths: list[int]) -> None:
    ours, theirs, compiled = twins(GROUPED)
    groups = texts(37, [20, 7])
    prompts = [prompt for prompt in groups for _ in range(SIZE)]
    responses = texts(37, lengths, seed=1) + texts(37, lengths[::-1], seed=2)
    mask = torch.arange(max(lengths)) < torch.tensor([lengths + lengths[::-1]]).T
    mask &= ~((torch.arange(len(mask)) == 1)[:, None] & torch.tensor(loss is token_loss))
    for kernels_, model in ((partial(score, ours), ours), (compiled.score, theirs)):
        found = loss(kernels_(prompts, responses, 0.9), mask)
        found.backward()
        assert model.norm.grad is not None
    check_gradients(ours, theirs)


def test_a_loss_over_several_passes_has_the_gradient_of_one() -> None:
    ours, theirs, compiled = twins(GROUPED)
    groups = [([texts(37, [size])[0]] * SIZE, texts(37, [3, 9, 1], seed=size)) for size in (20, 7)]
    for kernels_ in (partial(score, ours), compiled.score):
        parts = [kernels_(*group, 1.0) for group in groups]
        sums = torch.stack([part.logprobs.sum() + part.entropies.square().sum() for part in parts])
        (sums[0] * sums[1]).backward()
    check_gradients(ours, theirs)


def test_two_problems_with_one_prompt_are_scored_as_any_others() -> None:
    ours, theirs, compiled = twins(GROUPED)
    prompts, responses = [texts(37, [9])[0]] * 4, texts(37, [3, 30, 1, 12])
    expected, found = score(ours, prompts, responses, 1.0), compiled.score(prompts, responses, 1.0)
    torch.testing.assert_close(found.logprobs, expected.logprobs, **CLOSE)
    weigh(expected).backward()
    weigh(found).backward()
    check_gradients(ours, theirs)


def both(shape: ModelShape, prompts: list[list[int]], budgets: list[int], **changes: Any) -> tuple[Sampled, Sampled]:
    """torch's samples and the compiled ones; what was sampled is checked against torch's `score`."""
    arguments: dict[str, Any] = {
        "group_size": 3,
        "temperature": 1.0,
        "stream": Stream(5, range(len(prompts))),
        "eos_ids": [2],
        "pad_id": 0,
        "rows_at_once": 5,
    } | changes
    ours, _, compiled = twins(shape)
    expected, found = sample(ours, prompts, budgets, **arguments), compiled.sample(prompts, budgets, **arguments)
    written = [row[:length].tolist() for row, length in zip(found.tokens, found.lengths.tolist(), strict=True)]
    rows = [prompt for prompt in prompts for _ in range(arguments["group_size"])]
    if arguments["temperature"]:
        with torch.no_grad():
            scores = score(ours, rows, written, arguments["temperature"])
        torch.testing.assert_close(found.logprobs, scores.logprobs, **CLOSE)
        torch.testing.assert_close(found.entropies, scores.entropies, **CLOSE)
    return expected, found


def check_equal(expected: Sampled, found: Sampled) -> None:
    for name in ("tokens", "lengths", "finished"):
        assert torch.equal(getattr(expected, name), getattr(found, name)), name
    torch.testing.assert_close(found.logprobs, expected.logprobs, **CLOSE)
    torch.testing.assert_close(found.entropies, expected.entropies, **CLOSE)


@settings(SPARING, max_examples=15)
@given(
    shapes(),
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 16)), min_size=1, max_size=3),
    st.sampled_from([1.0, 0.6, 0.0]),
    st.sampled_from([[], [2], [2, 0, 4]]),
    st.integers(2, 9),
)
def test_the_same_stream_draws_torch_s_tokens(
    shape: ModelShape, sizes: list[tuple[int, int]], temperature: float, ends: list[int], rows: int
) -> None:
    prompts, budgets = texts(5, [size for size, _ in sizes]), [budget for _, budget in sizes]
    check_equal(*both(shape, prompts, budgets, temperature=temperature, eos_ids=ends, rows_at_once=rows))


@pytest.mark.parametrize("length", [1, 31, 33, 64, 127])
def test_texts_that_end_at_every_bound_of_the_memory(length: int) -> None:
    prompts, budgets = texts(61, [1, length]), [128 - 1, 128 - length]  # up to the context's last token
    check_equal(*both(LAPTOP, prompts, budgets, group_size=1, eos_ids=[], rows_at_once=2))


def test_one_row_one_token() -> None:
    check_equal(*both(LAPTOP, [[3]], [1], group_size=1, rows_at_once=128))


@pytest.mark.parametrize("rows_at_once", [2, 7, 1000])
def test_tokens_do_not_depend_on_how_many_rows_go_together(rows_at_once: int) -> None:
    prompts, budgets = texts(61, [3, 17, 1, 9]), [40, 7, 1, 25]
    check_equal(*both(LAPTOP, prompts, budgets, rows_at_once=rows_at_once, group_size=6))


def test_groups_keep_their_numbers_however_a_batch_is_split() -> None:
    _, _, compiled = twins(LAPTOP)
    prompts = texts(61, [3, 17, 1])
    given_: dict[str, Any] = {"temperature": 1.0, "eos_ids": [2], "pad_id": 0, "rows_at_once": 4}
    whole = compiled.sample(prompts, [20] * 3, group_size=4, stream=Stream(1, range(3)), **given_)
    part = compiled.sample(prompts[1:2], [20], group_size=2, stream=Stream(1, [1], first_samples=[2]), **given_)
    again = compiled.sample(prompts, [20] * 3, group_size=4, stream=Stream(1, range(3), draw=1), **given_)
    width = part.tokens.shape[1]
    assert torch.equal(part.tokens, whole.tokens[6:8, :width])
    assert not torch.equal(again.tokens[:, 0], whole.tokens[:, 0])


def test_a_nucleus_is_sampled_as_torch_samples_it() -> None:
    ours, _, compiled = twins(LAPTOP)
    given_: dict[str, Any] = {"group_size": 3, "temperature": 1.0, "eos_ids": [2], "pad_id": 0, "rows_at_once": 5}
    given_ |= {"stream": Stream(5, range(2)), "top_p": 0.8}
    prompts = texts(61, [3, 17])
    check_equal(sample(ours, prompts, [12, 10], **given_), compiled.sample(prompts, [12, 10], **given_))


@pytest.mark.parametrize("temperature", [0.8, 0.0])
def test_a_response_begins_with_its_prefix(temperature: float) -> None:
    prefixes = [[], [7], [7, 2, 9], [8] * 10, [1, 1], [2]]
    expected, found = both(LAPTOP, texts(61, [4, 9]), [12, 10], prefixes=prefixes, temperature=temperature)
    check_equal(expected, found)
    assert found.tokens[2, :2].tolist() == [7, 2]
    assert found.lengths[[2, 5]].tolist() == [2, 1]
    assert bool(found.finished[5])


def test_what_does_not_fit_is_refused() -> None:
    _, _, compiled = twins(LAPTOP)
    with pytest.raises(InputError, match="context"):
        compiled.score([[1] * 100], [[1] * 30], 1.0)
    with pytest.raises(InputError, match="context"):
        compiled.sample(
            [[1] * 100],
            [29],
            group_size=1,
            temperature=1.0,
            stream=Stream(0, [0]),
            eos_ids=[],
            pad_id=0,
            rows_at_once=1,
        )
    for prompts, responses in (([[]], [[1]]), ([[1]], [[]])):
        with pytest.raises(ValueError, match="at least one token"):
            compiled.score(prompts, responses, 1.0)


def test_micro_batches_hold_every_row_once_and_whole_groups() -> None:
    _, _, compiled = twins(LAPTOP)
    prompts = [[1] * 10] * 3 + [[2] * 10] * 2 + [[3] * 10]
    cut = compiled.micro_batches(prompts, [5, 6, 7, 40, 40, 5], 60)
    assert cut == [[0, 1, 2], [3, 4], [5]]
    assert compiled.micro_batches(prompts, [5] * 6, 1000) == [[0, 1, 2, 3, 4, 5]]


def test_memory_is_as_large_as_what_is_asked_for_and_grows() -> None:
    space = Workspace()
    assert space.take("a", 2, 3).shape == (2, 3)
    assert space.take("a", 50, 7).shape == (50, 7)
    assert space.take("a", 0, 4).shape == (0, 4)


TINY = (
    "model.shape.width=24",
    "model.shape.heads=2",
    "model.shape.layers=2",
    "model.shape.feed_forward=40",
    "problems.train_size=64",
    "rollout.batch_size=4",
    "rollout.group_size=4",
)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from siri.engines.local.warmup import write_initialisation

    folder = tmp_path_factory.mktemp("untrained") / "model"
    write_initialisation(load("laptop", TINY), folder)
    return folder


def test_two_steps_make_torch_s_weights(untrained: Path) -> None:
    weights = []
    for name in ("torch", "compiled"):
        config = load("laptop", [*TINY, f"engine.kernels={name}"])
        stepper = LocalStepper(config)
        stepper.load(untrained)
        for step in (1, 2):
            problems = problems_of_step(load_splits(config.problems).train.problems, 0, step, 4)
            batch = stepper.sample(problems, [24, 1, 2, 24], step)
            stepper.update(batch, torch.linspace(-1, 1, len(batch.texts)), step)
        weights.append(torch.cat([parameter.detach().flatten() for parameter in stepper.policy.parameters().values()]))
    assert float((weights[0] - weights[1]).norm() / weights[0].norm()) < 1e-5


BITS = """
import hashlib, sys, torch
from siri.engines.local.uniforms import Stream
from tests.engines.test_compiled import LAPTOP, fingerprint
print(fingerprint())
"""


def fingerprint() -> str:
    """A hash of everything that the kernels compute in a batch."""
    _, theirs, compiled = twins(LAPTOP)
    prompts = texts(61, [5, 33])
    sampled = compiled.sample(
        prompts,
        [40, 9],
        group_size=3,
        temperature=0.9,
        stream=Stream(1, range(2)),
        eos_ids=[2],
        pad_id=0,
        rows_at_once=4,
    )
    written = [row[:length].tolist() for row, length in zip(sampled.tokens, sampled.lengths.tolist(), strict=True)]
    weigh(compiled.score([prompts[row // 3] for row in range(6)], written, 1.0)).backward()
    tensors = [*vars(sampled).values(), *(p.grad for p in theirs.parameters() if p.grad is not None)]
    return hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)).hexdigest()


def test_bits_are_the_same_in_another_process_whose_code_comes_from_the_cache() -> None:
    done = subprocess.run([sys.executable, "-c", BITS], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == fingerprint()
    assert "compiling" not in done.stderr


GUARDED = """
from tests.engines.test_compiled import GROUPED, both, check_equal, check_gradients, score, texts, twins, weigh
from dataclasses import replace
small = replace(GROUPED, vocabulary=7, width=4, heads=2, kv_heads=1, head_size=2, feed_forward=3, context=40)
for layers in (1, 2):
    shape = replace(small, layers=layers)
    for lengths in ([1, 1, 1], [3, 5, 1], [6, 1, 2]):
        ours, theirs, compiled = twins(shape)
        prompts = [[1]] * 2 + [[2, 3, 4]]
        responses = texts(7, lengths)
        weigh(score(ours, prompts, responses, 1.0)).backward()
        weigh(compiled.score(prompts, responses, 1.0)).backward()
        check_gradients(ours, theirs)
    for temperature in (1.0, 0.0):
        check_equal(*both(shape, texts(7, [1, 31, 5]), [35, 9, 1], temperature=temperature, rows_at_once=4))
"""


def test_no_index_leaves_its_array_where_python_checks_every_one() -> None:
    """numba checks none: the same code without it, where numpy does."""
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


def archive(tmp_path: Path) -> Path:
    path = tmp_path / "siri" / "kernels" / "name.code"
    cache.keep(path, "name", b"archive")
    return path


def test_what_was_kept_is_read_by_its_name_alone(tmp_path: Path) -> None:
    path = archive(tmp_path)
    assert cache.read(path, "name") == b"archive"
    assert cache.read(path, "another") is None
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert cache.read(tmp_path / "none.code", "name") is None


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 100])
def test_a_damaged_file_is_not_run(tmp_path: Path, damage: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    path = archive(tmp_path)
    path.write_bytes(damage)
    assert cache.read(path, "name") is None
    assert "damaged" in capsys.readouterr().err
    path.write_bytes(archive(tmp_path / "other").read_bytes()[:-1] + b"X")
    assert cache.read(path, "name") is None


def test_a_file_that_another_user_can_have_written_is_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path)
    for mode in (0o620, 0o602, 0o666):
        path.chmod(mode)
        assert cache.read(path, "name") is None
        assert "another user" in capsys.readouterr().err
    path.chmod(0o644)
    assert cache.read(path, "name") == b"archive"
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert cache.read(path, "name") is None


def test_neither_a_link_nor_a_pipe_is_run(tmp_path: Path) -> None:
    path = archive(tmp_path)
    (tmp_path / "link.code").symlink_to(path)
    assert cache.read(tmp_path / "link.code", "name") is None
    os.mkfifo(tmp_path / "pipe.code", 0o600)
    assert cache.read(tmp_path / "pipe.code", "name") is None


def test_a_place_that_cannot_be_written_is_said_and_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    cache.keep(tmp_path / "file" / "kernels" / "name.code", "name", b"archive")
    assert "not kept" in capsys.readouterr().err
    with cache._alone(tmp_path / "file" / "kernels" / "name.code"):
        pass


def test_code_is_kept_by_version_and_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {cache.key.__wrapped__()}
    monkeypatch.setattr(cache.llvmlite.binding, "get_host_cpu_name", lambda: "another")
    found.add(cache.key.__wrapped__())
    monkeypatch.setattr(cache, "version", lambda name: "0")
    found.add(cache.key.__wrapped__())
    assert len(found) == 3


@pytest.mark.parametrize(
    ("setting", "named"),
    [("engine.dtype=bfloat16", "engine.dtype=bfloat16"), ("engine.threads=2", "engine.threads=2")],
)
def test_what_the_kernels_are_not_made_for_is_one_line(setting: str, named: str) -> None:
    config = load("laptop", [*TINY, setting])
    with pytest.raises(InputError, match=f"^engine.kernels=compiled: .*{named}.*use engine.kernels=torch$"):
        LocalEngine(config, load_splits(config.problems).train)


def test_a_gpu_is_not_what_the_kernels_are_made_for() -> None:
    with pytest.raises(InputError, match=r"engine\.device=cuda"):
        require_compiled(EngineSettings(name="local", device="cuda", kernels="compiled"))


def test_a_missing_numba_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="numba is not installed here"):
        require_compiled(EngineSettings(name="local", kernels="compiled"))


def test_models_that_are_large_or_others_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import GPT2LMHeadModel

    from siri.engines.local.pretrained import PretrainedModel
    from tests.engines.test_pretrained import gpt2

    engine = EngineSettings(name="local", kernels="compiled")
    loaded = LoadedModel(Path(), decoder(), None, 128, (2,), 0)  # type: ignore[arg-type]
    monkeypatch.setattr(kernels, "LARGEST", 159_551)
    with pytest.raises(InputError, match=r"at most 159,551 parameters, and model\.base has 159,552"):
        open_kernels(engine, loaded)
    wrapped = LoadedModel(Path(), PretrainedModel(GPT2LMHeadModel(gpt2())), None, 128, (2,), 0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not GPT2LMHeadModel"):
        open_kernels(engine, wrapped)


def test_the_keys_know_the_kernels_and_what_decides_their_bits() -> None:
    compiled, plain = (numerics_of(load("laptop", [f"engine.kernels={name}"])) for name in ("compiled", "torch"))
    assert {"numba", "llvmlite", "scipy"} <= compiled.keys()
    assert compiled["kernels"] != plain["kernels"] == "torch"
    assert "numba" not in plain
