"""The compact decoder and its training-side log-probabilities, against slow and obvious oracles."""

import math
import random
from dataclasses import replace

import pytest
import torch

from siri.engines.local.forward import micro_batches, score
from siri.engines.local.initialisation import initialise
from siri.engines.local.model import Decoder, ModelShape, rotation_speeds
from siri.errors import InputError

LAPTOP = ModelShape(
    vocabulary=61,
    width=64,
    layers=3,
    heads=4,
    kv_heads=4,
    head_size=16,
    feed_forward=176,
    context=128,
    rope_theta=100.0,
    attention_bias="qkvo",
)
GROUPED = ModelShape(
    vocabulary=37,
    width=24,
    layers=2,
    heads=4,
    kv_heads=2,
    head_size=10,
    feed_forward=40,
    context=64,
    attention_bias="qkv",
    tied_head=True,
)


def decoder(shape: ModelShape = LAPTOP, seed: int = 0) -> Decoder:
    made = Decoder(shape)
    initialise(made, seed)
    return made


def texts(vocabulary: int, lengths: list[int], seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(vocabulary) for _ in range(length)] for length in lengths]


def test_reserved_tokens_leave_all_other_weights_as_they_would_be() -> None:
    less, more = decoder(), Decoder(replace(LAPTOP, vocabulary=61 + 24))
    initialise(more, 0, reserved=24)
    for (name, plain), wide in zip(less.named_parameters(), more.parameters(), strict=True):
        assert torch.equal(plain, wide[: len(plain)]), name


def every_position(model: Decoder, text: list[int]) -> torch.Tensor:
    return model(torch.tensor([text]), torch.arange(len(text)))


def test_the_laptop_shape_has_159552_parameters() -> None:
    assert sum(parameter.numel() for parameter in decoder().parameters()) == 159_552


def test_a_token_never_sees_what_comes_after_it() -> None:
    model, (text,) = decoder(), texts(61, [40])
    changed = [*text[:25], *texts(61, [15], seed=1)[0]]
    torch.testing.assert_close(every_position(model, text)[:25], every_position(model, changed)[:25])
    assert not torch.allclose(every_position(model, text)[25:], every_position(model, changed)[25:])


@pytest.mark.parametrize("shape", [LAPTOP, GROUPED])
def test_right_padding_leaves_the_logits_of_a_text_alone(shape: ModelShape) -> None:
    model, rows = decoder(shape), texts(shape.vocabulary, [40, 7, 23])
    ids = torch.tensor([[*row, *[0] * (40 - len(row))] for row in rows])
    together = model(ids, torch.arange(ids.numel())).view(3, 40, -1)
    for row, text in enumerate(rows):
        torch.testing.assert_close(together[row, : len(text)], every_position(model, text), atol=1e-5, rtol=0)


def test_logits_are_computed_only_where_they_are_selected() -> None:
    model, rows = decoder(), texts(61, [9, 9])
    everywhere = model(torch.tensor(rows), torch.arange(18))
    torch.testing.assert_close(model(torch.tensor(rows), torch.tensor([16, 2])), everywhere[[16, 2]])


@pytest.mark.parametrize("shape", [LAPTOP, GROUPED])
def test_decoding_token_by_token_gives_the_logits_of_a_full_forward(shape: ModelShape) -> None:
    model, rows = decoder(shape), texts(shape.vocabulary, [12, 3, 30])
    following = texts(shape.vocabulary, [20] * 6, seed=1)
    with torch.inference_mode():
        continuation, logits = model.prefill(rows, [1, 3, 2], 50)
        steps = [logits]
        for position in range(20):
            steps.append(continuation.decode(torch.tensor([text[position] for text in following])))
        for row, prompt in enumerate([rows[0], *[rows[1]] * 3, *[rows[2]] * 2]):
            oracle = every_position(model, prompt + following[row])[len(prompt) - 1 :]
            torch.testing.assert_close(torch.stack([step[row] for step in steps]), oracle, atol=1e-5, rtol=0)


def test_kept_rows_go_on_as_if_nothing_had_been_dropped() -> None:
    model, rows = decoder(), texts(61, [5, 9, 14, 2, 7])
    more = torch.tensor(texts(61, [5, 5, 5], seed=2))
    with torch.inference_mode():
        whole, _ = model.prefill(rows, [1] * 5, 20)
        part, _ = model.prefill(rows, [1] * 5, 20)
        torch.testing.assert_close(whole.decode(more[0]), part.decode(more[0]))
        part.keep(torch.tensor([0, 4, 3, 1]))
        expected = whole.decode(more[1])[[0, 4, 3, 1]]
        torch.testing.assert_close(part.decode(more[1][[0, 4, 3, 1]]), expected, atol=1e-5, rtol=0)
        part.keep(torch.tensor([2]))
        torch.testing.assert_close(part.decode(more[2][[3]]), whole.decode(more[2])[[3]], atol=1e-5, rtol=0)


def test_a_text_beyond_the_context_is_an_input_error() -> None:
    model = decoder(GROUPED)
    with pytest.raises(InputError, match="65 tokens, but the model reads 64 at most"):
        model.prefill([[1, 2]], [1], 65)
    with pytest.raises(InputError, match="65 tokens, but the model reads 64 at most"):
        score(model, [[1] * 60], [[1] * 6], 1.0)


@pytest.mark.parametrize("change", [{"kv_heads": 3}, {"head_size": 15}])
def test_a_shape_that_cannot_be_built_is_an_input_error(change: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        ModelShape(**{**vars(LAPTOP), **change})


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = decoder(seed=3).state_dict()
    torch.manual_seed(2)
    again, other = decoder(seed=3).state_dict(), decoder(seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["embedding"], other["embedding"])


def test_initial_weights_have_the_measured_deviations() -> None:
    model, residual = decoder(), 1 / math.sqrt(6)
    block = model.layers()[1]
    expected = {0.5: model.embedding, 1 / 8: block.qkv, residual / 8: block.out, 1 / 16: model.head}
    expected |= {1 / 8 + 1e-9: block.gate_up, residual / math.sqrt(176): block.down}
    for deviation, weight in expected.items():
        assert weight is not None
        assert weight.std().item() == pytest.approx(deviation, rel=0.05)
    assert torch.equal(model.norm, torch.ones(64))
    assert block.qkv_bias is not None
    assert not block.qkv_bias.any()


def test_heads_of_the_first_layer_start_by_looking_a_fixed_number_of_tokens_back() -> None:
    model = decoder()
    bias = model.layers()[0].qkv_bias
    assert bias is not None
    speeds = rotation_speeds(LAPTOP)
    for head in range(3):
        query, key = bias[head * 16 : head * 16 + 16], bias[64 + head * 16 : 64 + head * 16 + 16]
        assert torch.equal(key, torch.cat((torch.full((8,), math.sqrt(2)), torch.zeros(8))))
        assert torch.allclose(query[:8], math.sqrt(2) * torch.cos(speeds * (head + 1)))
        scores = [
            (
                torch.complex(query[:8], query[8:])
                * torch.polar(torch.ones(8), speeds * back)
                * torch.complex(key[:8], -key[8:])
            )
            .real.sum()
            .item()
            for back in range(30)
        ]
        assert max(range(30), key=scores.__getitem__) == head + 1
        assert scores[head + 1] == pytest.approx(16, rel=1e-5)
    assert not bias[48:64].any()
    assert not bias[112:].any()


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_scores_are_those_of_a_full_forward_of_each_text(temperature: float) -> None:
    model, prompts, responses = decoder(), texts(61, [5, 12, 1]), texts(61, [30, 1, 17], seed=1)
    scores = score(model, prompts, responses, temperature)
    assert scores.logprobs.shape == scores.entropies.shape == (3, 30)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        logits = every_position(model, prompt + response)[len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits / temperature, -1)
        chosen = expected[torch.arange(len(response)), torch.tensor(response)]
        torch.testing.assert_close(scores.logprobs[row, : len(response)], chosen, atol=1e-5, rtol=0)
        entropies = torch.distributions.Categorical(logits=logits / temperature).entropy()
        torch.testing.assert_close(scores.entropies[row, : len(response)], entropies, atol=1e-5, rtol=0)
        assert not scores.logprobs[row, len(response) :].any()


def test_summed_gradients_do_not_depend_on_the_micro_batches() -> None:
    model, rng = decoder(), random.Random(5)
    prompts = texts(61, [rng.randrange(1, 20) for _ in range(24)])
    responses = texts(61, [rng.randrange(1, 40) for _ in range(24)], seed=1)
    lengths = [len(prompt) + len(response) for prompt, response in zip(prompts, responses, strict=True)]

    def gradients(limit: int) -> torch.Tensor:
        model.zero_grad()
        for batch in micro_batches(lengths, limit):
            scores = score(model, [prompts[row] for row in batch], [responses[row] for row in batch], 1.0)
            (scores.logprobs.sum() - 0.1 * scores.entropies.sum()).backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])

    alone = gradients(1)
    for limit in (100, 400, 10_000):
        assert (gradients(limit) - alone).norm() / alone.norm() < 1e-6


def test_every_parameter_of_the_decoder_gets_a_gradient() -> None:
    for shape in (LAPTOP, GROUPED):
        model = decoder(shape)
        score(model, texts(shape.vocabulary, [6]), texts(shape.vocabulary, [9], seed=1), 1.0).logprobs.sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


def test_micro_batches_hold_every_row_once_by_length_within_the_limit() -> None:
    lengths = [9, 3, 3, 50, 8, 1, 9]
    batches = micro_batches(lengths, 20)
    assert batches == [[5, 1, 2], [4, 0], [6], [3]]
    assert sorted(row for batch in batches for row in batch) == list(range(7))
    assert micro_batches([], 20) == []
    assert micro_batches([10, 10], 20) == [[0, 1]]
    assert micro_batches([10, 11], 20) == [[0], [1]]
