"""Sampling from matrices rounded once: the same bits as autocast, which rounds them for every token."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedConfig

from siri.engines.local.rounding import rounded_copy
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


def sampled(model: object) -> Sampled:
    with torch.autocast("cpu", torch.bfloat16):
        return sample(
            model,  # type: ignore[arg-type]
            [[1, 5, 9], [1, 7], [1, 3, 4, 8, 2]],
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
    copied = [parameter for parameter in rounded_copy(model).parameters() if parameter.data_ptr() not in own]
    assert copied
    assert {parameter.dtype for parameter in copied} == {torch.bfloat16}
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
