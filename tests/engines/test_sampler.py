"""Sampling under budgets, against a sampler that has no cache, no batch and no shortcuts."""

from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from siri.engines.local.forward import score
from siri.engines.local.model import CachedRows, Decoder, ModelShape
from siri.engines.local.sampler import (
    FREE,
    Running,
    Sampled,
    blank,
    choose,
    nucleus,
    sample,
    survivors,
    trimmed,
    write_tokens,
)
from siri.engines.local.uniforms import Stream, uniforms
from siri.errors import InputError
from tests.engines.test_local_model import GROUPED, LAPTOP, decoder, texts

EOS, PAD = 2, 0
PROMPTS = texts(61, [3, 17, 1, 9, 30, 9])
BUDGETS = [40, 7, 1, 25, 33, 40]


def draw(model: Decoder, seed: int = 0, **changes: Any) -> Sampled:
    arguments: dict[str, Any] = {
        "prompts": PROMPTS,
        "budgets": BUDGETS,
        "group_size": 4,
        "temperature": 1.0,
        "stream": Stream(seed, range(6)),
        "eos_ids": [EOS],
        "pad_id": PAD,
        "rows_at_once": 16,
    }
    return sample(model, **{**arguments, **changes})


def responses(sampled: Sampled) -> list[list[int]]:
    return [row[:length].tolist() for row, length in zip(sampled.tokens, sampled.lengths.tolist(), strict=True)]


def equal(one: Sampled, other: Sampled) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in vars(one))


@pytest.fixture(scope="module")
def model() -> Decoder:
    return decoder()


def test_a_row_never_exceeds_its_own_budget(model: Decoder) -> None:
    sampled, limits = draw(model), torch.tensor(BUDGETS).repeat_interleave(4)
    assert sampled.tokens.shape == (24, int(sampled.lengths.max()))
    assert bool((sampled.lengths <= limits).all())
    assert bool((sampled.lengths[~sampled.finished] == limits[~sampled.finished]).all())
    assert bool((sampled.lengths >= 1).all())


def test_a_response_ends_with_its_first_end_token_and_counts_it(model: Decoder) -> None:
    sampled = draw(model, eos_ids=[EOS, 5], budgets=[40] * 6)
    assert 0 < int(sampled.finished.sum()) < 24
    for response, finished in zip(responses(sampled), sampled.finished.tolist(), strict=True):
        assert not {EOS, 5} & set(response[:-1])
        assert (response[-1] in (EOS, 5)) == finished


def test_an_end_token_on_the_last_token_of_the_budget_finishes_the_row(model: Decoder) -> None:
    sampled = draw(model, budgets=[1] * 6, group_size=200, rows_at_once=500)
    assert sampled.tokens.shape == (1200, 1)
    assert torch.equal(sampled.finished, sampled.tokens[:, 0] == EOS)
    assert 0 < int(sampled.finished.sum()) < 1200


def test_nothing_stands_after_the_end_of_a_response(model: Decoder) -> None:
    sampled = draw(model, pad_id=60)
    beyond = torch.arange(sampled.tokens.shape[1]) >= sampled.lengths[:, None]
    assert bool((sampled.tokens[beyond] == 60).all())
    assert not sampled.logprobs[beyond].any()
    assert not sampled.entropies[beyond].any()
    assert bool((sampled.entropies[~beyond] > 0).all())


def test_what_was_decoded_after_the_first_end_token_or_the_budget_does_not_count() -> None:
    sampled = blank(torch.tensor([4, 3, 2]), PAD)
    sampled.tokens[:] = torch.tensor([[9, EOS, 9, EOS], [9, 9, 9, EOS], [9, EOS, 9, 9]])
    cut = trimmed(sampled, torch.tensor([EOS]), PAD)
    assert responses(cut) == [[9, EOS], [9, 9, 9], [9, EOS]]
    assert cut.finished.tolist() == [True, False, True]
    assert cut.tokens.tolist() == [[9, EOS, PAD], [9, 9, 9], [9, EOS, PAD]]


def test_without_end_tokens_every_response_fills_its_budget(model: Decoder) -> None:
    sampled = draw(model, eos_ids=[])
    assert torch.equal(sampled.lengths, torch.tensor(BUDGETS).repeat_interleave(4))
    assert not sampled.finished.any()


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("shape", [LAPTOP, GROUPED])
@pytest.mark.parametrize("rows_at_once", [3, 100])
def test_log_probabilities_are_those_of_the_trainer(shape: ModelShape, temperature: float, rows_at_once: int) -> None:
    model, prompts = decoder(shape, seed=1), texts(shape.vocabulary, [3, 17, 1, 9, 24, 9])
    sampled = draw(model, prompts=prompts, temperature=temperature, rows_at_once=rows_at_once)
    with torch.no_grad():
        scores = score(model, [prompts[row // 4] for row in range(24)], responses(sampled), temperature)
    torch.testing.assert_close(sampled.logprobs, scores.logprobs, atol=1e-5, rtol=0)
    torch.testing.assert_close(sampled.entropies, scores.entropies, atol=1e-5, rtol=0)


def test_greedy_sampling_is_what_one_text_at_a_time_without_a_cache_gives(model: Decoder) -> None:
    sampled = draw(model, temperature=0.0, group_size=1)
    for prompt, budget, response in zip(PROMPTS, BUDGETS, responses(sampled), strict=True):
        text = list(prompt)
        while len(text) < len(prompt) + budget and (len(text) == len(prompt) or text[-1] != EOS):
            logits = model(torch.tensor([text]), torch.tensor([len(text) - 1]))
            text.append(int(logits.argmax()))
        assert response == text[len(prompt) :]
    assert not sampled.logprobs.any()


def test_equal_seeds_give_equal_bits_and_other_seeds_other_text(model: Decoder) -> None:
    assert equal(draw(model, seed=7), draw(model, seed=7))
    assert not torch.equal(draw(model, seed=7).tokens[:, :1], draw(model, seed=8).tokens[:, :1])


def test_a_group_drawn_again_takes_other_numbers(model: Decoder) -> None:
    first, second = draw(model), draw(model, stream=Stream(0, range(6), draw=1))
    assert not torch.equal(first.tokens[:, :1], second.tokens[:, :1])


def test_groups_keep_their_numbers_however_a_batch_is_split(model: Decoder) -> None:
    whole = responses(draw(model))
    part = draw(model, prompts=PROMPTS[2:5], budgets=BUDGETS[2:5], stream=Stream(0, [2, 3, 4]))
    assert responses(part) == whole[8:20]
    single = {"group_size": 1, "prompts": [PROMPTS[4]] * 2, "budgets": [BUDGETS[4]] * 2}
    rows = draw(model, stream=Stream(0, [4, 4], first_samples=[3, 1]), **single)
    assert responses(rows) == [whole[19], whole[17]]


@pytest.mark.parametrize("rows_at_once", [1, 5, 24])
def test_tokens_do_not_depend_on_how_many_rows_go_together(model: Decoder, rows_at_once: int) -> None:
    assert responses(draw(model, rows_at_once=rows_at_once)) == responses(draw(model))


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_a_response_begins_with_its_prefix_and_tells_what_the_policy_thinks_of_it(
    model: Decoder, temperature: float
) -> None:
    prefixes = [[7, 8, 9][: row % 4] if BUDGETS[row // 4] > 2 else [] for row in range(24)]
    sampled = draw(model, prefixes=prefixes, temperature=temperature)
    for response, prefix in zip(responses(sampled), prefixes, strict=True):
        assert response[: len(prefix)] == prefix
    if temperature:
        with torch.no_grad():
            scores = score(model, [PROMPTS[row // 4] for row in range(24)], responses(sampled), temperature)
        torch.testing.assert_close(sampled.logprobs, scores.logprobs, atol=1e-5, rtol=0)


def test_an_end_token_in_a_prefix_ends_the_response(model: Decoder) -> None:
    sampled = draw(model, prompts=[[1]], budgets=[9], stream=Stream(0, [0]), prefixes=[[5, EOS, 7]] * 4)
    assert responses(sampled) == [[5, EOS]] * 4
    assert bool(sampled.finished.all())


def test_uniforms_are_even_independent_and_never_0_or_1() -> None:
    table = uniforms(Stream(3, range(50)).rows(8), 0, 200)
    assert 0 < table.min() < table.max() < 1
    assert abs(table.mean() - 0.5) < 0.005
    assert abs(table.var() - 1 / 12) < 0.002
    for one, other in ((table[:, 1:], table[:, :-1]), (table[1:], table[:-1]), (table[8:], table[:-8])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02
    assert len(np.unique(table)) == table.size
    assert (uniforms(Stream(3, range(50)).rows(8), 64, 10) == table[:, 64:74]).all()


def test_sampling_asks_nothing_of_the_global_generator(model: Decoder) -> None:
    state = torch.get_rng_state()
    draw(model)
    assert torch.equal(state, torch.get_rng_state())


def test_tokens_come_as_often_as_their_probabilities_say() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0, -3.0, -float("inf")]]).expand(200_000, 5)
    tokens, logprobs, _ = choose(logits, 0.6, torch.linspace(0, 1, 200_002, dtype=torch.float64)[1:-1])
    expected = torch.softmax(logits[0] / 0.6, -1)
    shares = torch.bincount(tokens, minlength=5) / len(tokens)
    torch.testing.assert_close(shares, expected, atol=5e-3, rtol=0)
    torch.testing.assert_close(logprobs.exp(), expected[tokens])


def test_a_spent_row_may_wait_beside_longer_ones_at_the_end_of_the_context(model: Decoder) -> None:
    prompts, budgets = texts(61, [120, 2, 3, 4, 5, 6]), [8, 126, 100, 100, 100, 100]
    sampled = draw(model, prompts=prompts, budgets=budgets, eos_ids=[], group_size=1)
    assert sampled.lengths.tolist() == budgets
    written = [row[:length].tolist() for row, length in zip(sampled.tokens, sampled.lengths.tolist(), strict=True)]
    with torch.no_grad():
        scores = score(model, prompts, written, 1.0)
    torch.testing.assert_close(sampled.logprobs, scores.logprobs, atol=1e-5, rtol=0)


def test_what_was_sampled_can_stand_in_a_loss(model: Decoder) -> None:
    sampled = draw(model)
    scale = torch.ones((), requires_grad=True)
    (
        (sampled.logprobs + sampled.entropies) * scale * sampled.lengths[:, None] * sampled.finished[:, None]
    ).sum().backward()
    assert scale.grad is not None


def test_members_of_a_group_differ(model: Decoder) -> None:
    sampled = draw(model, group_size=8, budgets=[30] * 6)
    for prompt in range(6):
        assert len({tuple(row) for row in responses(sampled)[prompt * 8 : prompt * 8 + 8]}) == 8


def test_few_rows_move_when_finished_ones_are_dropped() -> None:
    writing = torch.tensor([True, False, True, False, True, True])
    assert survivors(writing, 4).tolist() == [0, 4, 2, 5]
    assert survivors(torch.tensor([False, False, True]), 1).tolist() == [2]


def test_prompt_and_budget_beyond_the_context_are_an_input_error(model: Decoder) -> None:
    with pytest.raises(InputError, match="context"):
        draw(model, prompts=[[1] * 100], budgets=[29], stream=Stream(0, [0]))


@pytest.mark.parametrize(
    "changes",
    [
        {"budgets": [1]},
        {"budgets": [0] * 6},
        {"group_size": 0},
        {"prompts": []},
        {"prompts": [[]] * 6},
        {"stream": Stream(0, [0])},
        {"prefixes": [[1]]},
        {"prefixes": [[1] * 9] * 24},
    ],
)
def test_senseless_requests_are_refused(model: Decoder, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="sample needs"):
        draw(model, **changes)


def step_without_values(temperature: float, shape: ModelShape = GROUPED) -> Running:
    """Three tokens of four rows, one of them forced, on tensors that have shapes and no values."""
    model = Decoder(shape)
    prompts = torch.ones(4, dtype=torch.long) * 3
    remembered = [(torch.zeros(4, 5, shape.kv_heads, shape.head_size),) * 2 for _ in model.layers()]
    rows = torch.arange(4)
    continuation = CachedRows(model, remembered, prompts, rows, 6)
    running = Running(continuation, torch.zeros(4, shape.vocabulary), rows, torch.ones(4, dtype=torch.long) * 6)
    sampled, ends, uniform = blank_of(4, 6), torch.tensor([EOS]), torch.ones(4, dtype=torch.float64) / 2
    for given in (None, torch.zeros(4, dtype=torch.long), None):
        tokens = write_tokens(running, sampled, temperature, uniform, ends, given)
        running.advance(tokens, 4)
    return running


def blank_of(rows: int, budget: int) -> Sampled:
    values = torch.zeros(rows, budget)
    return Sampled(values.long(), values, values.clone(), torch.ones(rows, dtype=torch.long), torch.zeros(rows).bool())


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_a_decode_step_waits_for_no_value(temperature: float) -> None:
    with FakeTensorMode(), torch.inference_mode():
        running = step_without_values(temperature)
    assert running.logits.shape == (4, GROUPED.vocabulary)
    assert running.place.shape == (1,)


@pytest.mark.parametrize("ask", [lambda x: x.max().item(), lambda x: bool(x.any()), lambda x: x.nonzero()])
def test_a_step_that_waited_for_one_would_be_noticed(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = Decoder.logits
    monkeypatch.setattr(Decoder, "logits", lambda self, x: (ask(x), logits(self, x))[1])
    with (
        FakeTensorMode(),
        torch.inference_mode(),
        pytest.raises((DataDependentOutputException, DynamicOutputShapeException)),
    ):
        step_without_values(1.0)


def slow_nucleus(probabilities: list[float], top_p: float) -> list[float]:
    """What is left of a distribution, renormalised: token after token by falling probability until there is enough."""
    kept: list[int] = []
    for token in sorted(range(len(probabilities)), key=lambda token: (-probabilities[token], token)):
        if kept and sum(probabilities[one] for one in kept) >= top_p:
            break
        kept.append(token)
    whole = sum(probabilities[one] for one in kept)
    return [probability / whole if token in kept else 0.0 for token, probability in enumerate(probabilities)]


@pytest.mark.parametrize("top_p", [0.99, 0.9, 0.5, 0.1, 1e-9])
def test_the_nucleus_is_the_likeliest_tokens_that_hold_enough(top_p: float) -> None:
    logprobs = torch.log_softmax(torch.randn(50, 31, generator=torch.Generator().manual_seed(4)), -1)
    found = nucleus(logprobs, top_p).exp()
    for row, left in zip(logprobs.exp().tolist(), found.tolist(), strict=True):
        assert left == pytest.approx(slow_nucleus(row, top_p), abs=1e-6)


def test_of_equally_likely_tokens_the_first_ones_are_kept() -> None:
    assert (nucleus(torch.log(torch.full((1, 4), 0.25)), 0.5) > -torch.inf).tolist() == [[True, True, False, False]]


def test_top_p_draws_from_the_nucleus_and_tells_its_log_probabilities_and_entropy() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]).repeat(4000, 1))
    uniform = torch.rand(4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tokens, logprobs, entropies = choose(logits, 1.0, uniform, top_p=0.7)
    share = (tokens == 1).float().mean().item()
    assert set(tokens.tolist()) == {0, 1}
    assert share == pytest.approx(0.3 / 0.8, abs=0.03)
    assert logprobs[tokens == 0].tolist()[0] == pytest.approx(np.log(0.5 / 0.8), abs=1e-6)
    assert entropies[0].item() == pytest.approx(-(0.625 * np.log(0.625) + 0.375 * np.log(0.375)), abs=1e-6)


def test_a_whole_nucleus_changes_no_bit_and_a_tiny_one_is_greedy(model: Decoder) -> None:
    assert equal(draw(model), draw(model, top_p=1.0))
    tiny, greedy = draw(model, top_p=1e-9), draw(model, temperature=0.0)
    assert torch.equal(tiny.tokens, greedy.tokens)
    assert not torch.equal(draw(model).tokens, greedy.tokens)


@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_rows_chosen_some_at_a_time_are_chosen_alike(top_p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, uniform = torch.randn(11, 61, generator=generator), torch.rand(11, generator=generator).double()
    given = torch.full((11,), FREE)
    given[4] = 7
    together = choose(logits, 0.7, uniform, given, top_p)
    monkeypatch.setattr("siri.engines.local.sampler.AT_ONCE", 3 * 61)
    for one, other in zip(choose(logits, 0.7, uniform, given, top_p), together, strict=True):
        assert torch.equal(one, other)
