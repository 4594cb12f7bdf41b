"""Sampling from matrices rounded once: the same bits as autocast, which rounds them for every token."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedConfig

from siri.engines.local.forward import score
from siri.engines.local.model import product
from siri.engines.local.rounding import packs, rounded_copy
from siri.engines.local.sampler import Sampled, sample
from siri.engines.local.uniforms import Stream
from tests.engines.test_pretrained import gpt2, llama, load, qwen2, write_folder

MODELS = {
    "llama": llama(),
    "tied": llama(tie_word_embeddings=True),
    "qwen2": qwen2(),
    "rescaled": llama(hidden_act="gelu"),
    "gpt2": gpt2(),
}
"""The first three are siri's own decoder, the others transformers'."""

PROMPTS = [[1, 5, 9], [1, 7], [1, 3, 4, 8, 2]]


def sampled(model: object) -> Sampled:
    with torch.autocast("cpu", torch.bfloat16):
        return sample(
            model,  # type: ignore[arg-type]
            PROMPTS,
            [20, 30, 25],
            group_size=4,
            temperature=1.0,
            stream=Stream(3, range(3)),
            eos_ids=[2],
            pad_id=0,
            rows_at_once=8,
        )


@pytest.mark.parametrize("name", MODELS)
def test_a_rounded_copy_samples_what_autocast_samples_bit_for_bit(name: str, tmp_path: Path) -> None:
    config: PreTrainedConfig = MODELS[name]
    write_folder(tmp_path, config)
    model = load(tmp_path).model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    expected, found = sampled(model), sampled(rounded_copy(model))
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.logprobs, expected.logprobs)
    assert torch.equal(found.entropies, expected.entropies)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["llama", "tied", "rescaled"])
def test_a_rounded_copy_holds_matrices_in_half_the_bytes_and_shares_the_rest(name: str, tmp_path: Path) -> None:
    write_folder(tmp_path, MODELS[name])
    model = load(tmp_path).model
    own = {parameter.data_ptr() for parameter in model.parameters()}
    twin = rounded_copy(model)
    copied = [parameter for parameter in twin.parameters() if parameter.is_mkldnn or parameter.data_ptr() not in own]
    assert copied
    assert {parameter.dtype for parameter in copied} == {torch.bfloat16}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def packed(matrix: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(matrix.bfloat16(), 32)
    return result


PACKS = pytest.mark.skipif(not packs(), reason="a CPU for which oneDNN has bfloat16 would run it")


@PACKS
@pytest.mark.parametrize("rows", [1, 7, 32, 100])
@pytest.mark.parametrize("bias", [None, torch.linspace(-3, 3, 75).bfloat16()])
def test_a_packed_matrix_multiplies_as_the_rounded_one_does(rows: int, bias: torch.Tensor | None) -> None:
    generator = torch.Generator().manual_seed(rows)
    matrix, x = torch.randn(75, 48, generator=generator), torch.randn(2, rows, 48, generator=generator)
    with torch.inference_mode():
        found = product(x, packed(matrix), bias)
        exact = x.bfloat16().double() @ matrix.bfloat16().double().T + (0 if bias is None else bias.double())
    assert found.shape == (2, rows, 75)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=1e-4)


@PACKS
def test_a_decoder_samples_from_packed_matrices_and_keeps_its_own_as_they_are(tmp_path: Path) -> None:
    write_folder(tmp_path, MODELS["tied"])
    model = load(tmp_path).model
    twin = dict(rounded_copy(model).named_parameters())
    assert {name.rpartition(".")[2] for name, value in twin.items() if value.is_mkldnn} == {
        "qkv", "out", "gate_up", "down", "head"
    }  # fmt: skip
    assert not any(parameter.is_mkldnn for parameter in model.parameters())


def test_where_nothing_can_be_packed_a_rounded_copy_samples_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, MODELS["llama"])
    model = load(tmp_path).model
    monkeypatch.setattr("siri.engines.local.rounding.packs", lambda: False)
    plain = rounded_copy(model)
    assert not any(parameter.is_mkldnn for parameter in plain.parameters())
    assert torch.equal(sampled(plain).tokens, sampled(model).tokens)


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_sampling_in_bfloat16_tells_the_log_probabilities_that_scoring_gives(name: str, tmp_path: Path) -> None:
    write_folder(tmp_path, MODELS[name])
    model = load(tmp_path).model
    found = sampled(rounded_copy(model))
    prompts = [prompt for prompt in PROMPTS for _ in range(4)]
    responses = [row[:length] for row, length in zip(found.tokens.tolist(), found.lengths.tolist(), strict=True)]
    with torch.no_grad():
        exact = score(model, prompts, responses, 1.0).logprobs
    assert float((found.logprobs - exact).abs().max()) < 0.05  # rounding to 8 bits
