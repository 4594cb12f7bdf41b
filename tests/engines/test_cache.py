"""What a sampler's cache holds: it grows with what is written, in the number format that attention reads."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from siri.engines.local.initialisation import initialise
from siri.engines.local.model import FEWEST, GROWTH, CachedRows, Decoder, ModelShape
from siri.engines.local.network import PretrainedModel, PretrainedRows
from siri.engines.local.pretrained import load_pretrained
from tests.engines.test_architectures import ARCHITECTURES, write
from tests.engines.test_local_model import texts

LONG = ModelShape(
    vocabulary=61, width=16, layers=2, heads=2, kv_heads=1, head_size=8, feed_forward=16, context=4096, tied_head=True
)


def long_decoder() -> Decoder:
    model = Decoder(LONG)
    initialise(model, 0)
    return model


def autocast() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def bytes_of(rows: CachedRows) -> int:
    return sum(memory.untyped_storage().nbytes() for memory in (*rows.keys, *rows.values))


@torch.inference_mode()
def test_memory_follows_what_is_written_and_not_the_budget() -> None:
    rows, _ = long_decoder().prefill(texts(61, [10, 3]), [2, 1], 4000)
    a_slot = 2 * LONG.layers * 3 * LONG.key_width * 4
    for written in range(11, 600):
        rows.decode(torch.tensor([1, 2, 3]))
        assert written <= len(rows.keys[0]) == bytes_of(rows) // a_slot <= max(GROWTH * written, written + FEWEST)


@torch.inference_mode()
def test_memory_never_exceeds_the_room_that_is_asked_for() -> None:
    rows, _ = long_decoder().prefill(texts(61, [10, 3]), [1, 1], 103)
    for _ in range(100):
        rows.decode(torch.tensor([1, 2]))
    assert rows.written == len(rows.keys[0]) == 110  # the longest prompt, and what the shortest may write


@torch.inference_mode()
def test_growth_and_dropped_rows_change_no_logits() -> None:
    model, generator = long_decoder(), torch.Generator().manual_seed(0)
    prompts = texts(61, [10, 3, 7])
    rows, _ = model.prefill(prompts, [1, 1, 1], 400)
    kept, written = [0, 1, 2], [list(prompt) for prompt in prompts]
    for step in range(300):
        tokens = torch.randint(61, (len(kept),), generator=generator)
        logits = rows.decode(tokens)
        for row, token in zip(kept, tokens.tolist(), strict=True):
            written[row].append(token)
        if step == 100:
            rows.keep(torch.tensor([0, 2]))
            kept = [0, 2]
    for place, row in enumerate(kept):
        ids = torch.tensor([written[row]])
        torch.testing.assert_close(logits[place], model(ids, torch.tensor([ids.shape[1] - 1]))[0], atol=1e-5, rtol=0)
    assert {memory.shape[1] for memory in rows.keys} == {2}
    assert bytes_of(rows) == 2 * LONG.layers * len(rows.keys[0]) * 2 * LONG.key_width * 4  # dropped rows are gone


@pytest.mark.parametrize("arithmetic", [nullcontext, autocast])
@torch.inference_mode()
def test_keys_and_values_of_a_decoder_have_the_format_of_its_arithmetic(arithmetic: type) -> None:
    with arithmetic():
        rows, _ = long_decoder().prefill(texts(61, [10, 3]), [1, 1], 200)
        for _ in range(80):
            rows.decode(torch.tensor([1, 2]))
    expected = torch.float32 if arithmetic is nullcontext else torch.bfloat16
    assert {memory.dtype for memory in (*rows.keys, *rows.values)} == {expected}


@pytest.mark.parametrize("name", ["Qwen3", "Gemma2", "GPT2"])
@pytest.mark.parametrize("arithmetic", [nullcontext, autocast])
@torch.inference_mode()
def test_keys_and_values_of_other_models_have_it_too(arithmetic: type, name: str, tmp_path: Path) -> None:
    write(tmp_path, ARCHITECTURES[name]())
    model = load_pretrained(tmp_path, "cpu", torch.float32).model
    assert isinstance(model, PretrainedModel)
    with arithmetic():
        rows, _ = model.prefill(texts(61, [10, 3]), [1, 1], 40)
        assert isinstance(rows, PretrainedRows)
        for _ in range(5):
            rows.decode(torch.tensor([1, 2]))
    expected = torch.float32 if arithmetic is nullcontext else torch.bfloat16
    assert {states.dtype for layer in rows.cache.layers for states in (layer.keys, layer.values)} == {expected}
    assert {layer.keys.shape[2] for layer in rows.cache.layers} <= {15, 7}  # all that is written, or the window's
