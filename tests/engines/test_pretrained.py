"""Hugging Face folders: what comes in computes what transformers computes, what goes out is loaded by transformers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    GenerationConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from siri.engines.local.exporting import export
from siri.engines.local.forward import score
from siri.engines.local.initialisation import initialise
from siri.engines.local.model import Decoder, ModelShape
from siri.engines.local.pretrained import (
    LoadedModel,
    PretrainedModel,
    load_pretrained,
    load_tensors,
    named_weights,
    state_tensors,
)
from siri.engines.local.sampler import Sampled, sample
from siri.engines.local.uniforms import Stream
from siri.errors import InputError
from tests.engines.test_local_model import GROUPED, LAPTOP, decoder, texts

WORDS = ["<pad>", "<bos>", "<eos>", *[f"w{number}" for number in range(58)]]


def word_tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", chat_template="{{ bos_token }}"
    )


def llama(**changes: object) -> PreTrainedConfig:
    settings = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2}
    settings |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    return LlamaConfig(**{**settings, **changes})


def qwen2(**changes: object) -> PreTrainedConfig:
    settings = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2}
    settings |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    return Qwen2Config(**{**settings, **changes})


def gpt2() -> PreTrainedConfig:
    return GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=64)


def neox() -> PreTrainedConfig:
    return GPTNeoXConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
    )


def mistral() -> PreTrainedConfig:
    return MistralConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        sliding_window=8,
    )


DECODED: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": llama,
    "llama with biases and its own head size": lambda: llama(attention_bias=True, head_dim=12),
    "llama with a tied head": lambda: llama(tie_word_embeddings=True),
    "qwen2": lambda: qwen2(rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
    "qwen2 with a tied head": lambda: qwen2(tie_word_embeddings=True),
}
WRAPPED: dict[str, Callable[[], PreTrainedConfig]] = {
    "gpt2": gpt2,
    "gpt-neox": neox,
    "mistral with a sliding window": mistral,
    "qwen2 with a sliding window": lambda: qwen2(use_sliding_window=True, sliding_window=8, max_window_layers=1),
    "llama with scaled rotations": lambda: llama(
        rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    ),
    "llama with biases in its feed-forward": lambda: llama(mlp_bias=True),
}


def write_folder(folder: Path, config: PreTrainedConfig) -> PreTrainedModel:
    """A folder as it would come from the Hub, with weights large enough for logits to matter."""
    torch.manual_seed(0)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 0
    network = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.15) if parameter.ndim > 1 else parameter.add_(torch.randn_like(parameter) * 0.1)
    network.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return network


def load(folder: Path) -> LoadedModel:
    return load_pretrained(folder, "cpu", torch.float32)


def draw(loaded: LoadedModel, temperature: float) -> tuple[list[list[int]], Sampled]:
    prompts = texts(61, [3, 17, 1, 9])
    sampled = sample(
        loaded.model,
        prompts,
        [30, 12, 40, 7],
        group_size=3,
        temperature=temperature,
        stream=Stream(0, range(4)),
        eos_ids=loaded.eos_ids,
        pad_id=loaded.pad_id,
        rows_at_once=8,
    )
    return prompts, sampled


@pytest.mark.parametrize("name", DECODED)
def test_plain_llama_and_qwen2_become_a_decoder_with_equal_logits(name: str, tmp_path: Path) -> None:
    network, ids = write_folder(tmp_path, DECODED[name]()), torch.tensor(texts(61, [50, 50]))
    loaded = load(tmp_path)
    assert isinstance(loaded.model, Decoder)
    with torch.no_grad():
        expected = network(ids).logits.flatten(0, 1)
        torch.testing.assert_close(loaded.model(ids, torch.arange(100)), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", WRAPPED)
def test_other_models_run_in_transformers_with_equal_logits(name: str, tmp_path: Path) -> None:
    network, ids = write_folder(tmp_path, WRAPPED[name]()), torch.tensor(texts(61, [50, 50]))
    loaded = load(tmp_path)
    assert isinstance(loaded.model, PretrainedModel)
    select = torch.tensor([3, 99, 50, 3])
    with torch.no_grad():
        expected = network(ids).logits.flatten(0, 1)[select]
        torch.testing.assert_close(loaded.model(ids, select), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", [*DECODED, *WRAPPED])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampled_log_probabilities_are_those_of_the_trainer(name: str, temperature: float, tmp_path: Path) -> None:
    write_folder(tmp_path, (DECODED | WRAPPED)[name]())
    loaded = load(tmp_path)
    prompts, sampled = draw(loaded, temperature)
    written = [row[:length].tolist() for row, length in zip(sampled.tokens, sampled.lengths.tolist(), strict=True)]
    with torch.no_grad():
        scores = score(loaded.model, [prompts[row // 3] for row in range(12)], written, temperature)
    torch.testing.assert_close(sampled.logprobs, scores.logprobs, atol=1e-5, rtol=0)
    torch.testing.assert_close(sampled.entropies, scores.entropies, atol=1e-5, rtol=0)


def test_a_spent_row_may_wait_beside_longer_ones_at_the_end_of_a_wrapped_context(tmp_path: Path) -> None:
    write_folder(tmp_path, gpt2())
    loaded = load(tmp_path)
    prompts, budgets = texts(61, [60, 2, 3, 4, 5, 6]), [4, 62, 50, 50, 50, 50]
    sampled = sample(
        loaded.model,
        prompts,
        budgets,
        group_size=1,
        temperature=1.0,
        stream=Stream(0, range(6)),
        eos_ids=(),
        pad_id=0,
        rows_at_once=6,
    )
    written = [row[:length].tolist() for row, length in zip(sampled.tokens, sampled.lengths.tolist(), strict=True)]
    with torch.no_grad():
        scores = score(loaded.model, prompts, written, 1.0)
    torch.testing.assert_close(sampled.logprobs, scores.logprobs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [*DECODED, *WRAPPED])
def test_greedy_sampling_is_what_generate_gives(name: str, tmp_path: Path) -> None:
    network = write_folder(tmp_path, (DECODED | WRAPPED)[name]())
    prompts, sampled = draw(load(tmp_path), 0.0)
    for row, prompt in enumerate(prompts):
        ids, budget = torch.tensor([prompt]), [30, 12, 40, 7][row]
        mask = torch.ones_like(ids)
        expected = network.generate(ids, attention_mask=mask, max_new_tokens=budget, do_sample=False)[0, len(prompt) :]
        assert sampled.tokens[3 * row, : sampled.lengths[3 * row]].tolist() == expected.tolist()


@pytest.mark.parametrize(("shape", "scale"), [(LAPTOP, 7.0), (GROUPED, 1.3)])
def test_an_exported_decoder_is_loaded_by_transformers_with_equal_logits(
    shape: ModelShape, scale: float, tmp_path: Path
) -> None:
    model = decoder(shape)
    with torch.no_grad():
        model.norm.mul_(scale)
    export(model, word_tokenizer(), tmp_path)
    network = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor(texts(shape.vocabulary, [60, 60]))
    with torch.no_grad():
        logits = model(ids, torch.arange(120))
        assert 12 < logits.abs().max() < 25
        torch.testing.assert_close(network(ids).logits.flatten(0, 1), logits, atol=2e-5, rtol=0)


def test_an_exported_decoder_generates_the_same_greedy_text(tmp_path: Path) -> None:
    export(decoder(), word_tokenizer(), tmp_path)
    network, loaded = AutoModelForCausalLM.from_pretrained(tmp_path), load(tmp_path)
    prompts, sampled = draw(loaded, 0.0)
    for row, prompt in enumerate(prompts):
        budget = [30, 12, 40, 7][row]
        text = network.generate(torch.tensor([prompt]), max_new_tokens=budget, do_sample=False)[0, len(prompt) :]
        assert sampled.tokens[3 * row, : sampled.lengths[3 * row]].tolist() == text.tolist()


def test_an_exported_decoder_comes_back_bit_for_bit(tmp_path: Path) -> None:
    for number, shape in enumerate([LAPTOP, GROUPED]):
        model, folder = decoder(shape), tmp_path / str(number)
        export(model, word_tokenizer(), folder)
        loaded = load(folder)
        assert isinstance(loaded.model, Decoder)
        assert loaded.model.shape == shape
        assert all(
            torch.equal(one, other) for one, other in zip(model.parameters(), loaded.model.parameters(), strict=True)
        )
        assert (loaded.context, loaded.eos_ids, loaded.pad_id) == (shape.context, (2,), 0)


def test_an_exported_folder_names_what_transformers_4_looks_for(tmp_path: Path) -> None:
    export(decoder(), word_tokenizer(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    expected = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "rope_theta": 100.0, "head_dim": 16}
    assert expected.items() <= config.items()
    assert "auto_map" not in config
    with safe_open(tmp_path / "model.safetensors", "pt") as stored:
        assert stored.metadata() == {"format": "pt"}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_wrapped_model_is_exported_as_it_came(name: str, tmp_path: Path) -> None:
    network = write_folder(tmp_path / "base", WRAPPED[name]())
    loaded = load(tmp_path / "base")
    export(loaded.model, loaded.tokenizer, tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), again.parameters(), strict=True))
    assert load(tmp_path / "out").eos_ids == loaded.eos_ids


def test_the_tokenizer_goes_through_unchanged(tmp_path: Path) -> None:
    export(decoder(), word_tokenizer(), tmp_path)
    for tokenizer in (load(tmp_path).tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert tokenizer("<bos> w3 w57 <eos>")["input_ids"] == [1, 6, 60, 2]
        assert tokenizer.decode([1, 6, 60, 2]) == "<bos> w3 w57 <eos>"
        assert tokenizer.chat_template == "{{ bos_token }}"


def test_all_end_tokens_of_a_base_are_read_and_exported(tmp_path: Path) -> None:
    write_folder(tmp_path / "base", qwen2())
    GenerationConfig(eos_token_id=[5, 2]).save_pretrained(tmp_path / "base")
    loaded = load(tmp_path / "base")
    assert loaded.eos_ids == (5, 2)
    export(loaded.model, loaded.tokenizer, tmp_path / "out", loaded.eos_ids)
    assert load(tmp_path / "out").eos_ids == (5, 2)


@pytest.mark.parametrize("name", [*DECODED, *WRAPPED])
def test_stored_weights_bring_a_model_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    write_folder(tmp_path, (DECODED | WRAPPED)[name]())
    model, other = load(tmp_path).model, load(tmp_path).model
    parameters = list(other.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.zero_()
    save_file(state_tensors(model), tmp_path / "stored.safetensors")
    load_tensors(other, load_file(tmp_path / "stored.safetensors"))
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), parameters, strict=True))
    assert all(one is two for one, two in zip(other.parameters(), parameters, strict=True))


@pytest.mark.parametrize("name", ["llama", "qwen2 with a tied head", "gpt2"])
def test_parameters_lie_in_aligned_memory_of_their_own(name: str, tmp_path: Path) -> None:
    write_folder(tmp_path, (DECODED | WRAPPED)[name]())
    for parameter in load(tmp_path).model.parameters():
        assert parameter.data_ptr() % 64 == 0
        assert parameter.untyped_storage().nbytes() == parameter.nbytes


def test_state_tensors_do_not_follow_later_training() -> None:
    model = decoder()
    before = state_tensors(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    for name, weight in named_weights(model):
        torch.testing.assert_close(weight, before[name] + 1)


def test_weights_that_do_not_fit_are_refused_before_any_is_written() -> None:
    model, tensors = decoder(), state_tensors(decoder(seed=1))
    before = state_tensors(model)
    broken = [
        {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"},
        {**tensors, "model.extra": torch.zeros(1)},
        {**tensors, "model.norm.weight": torch.zeros(63)},
    ]
    for attempt in broken:
        with pytest.raises(ValueError, match=r"^1 weights are missing, unknown or of another size: (lm_head|model)\."):
            load_tensors(model, attempt)
    assert all(torch.equal(weight, before[name]) for name, weight in named_weights(model))


def test_weights_are_converted_to_the_wanted_number_format(tmp_path: Path) -> None:
    write_folder(tmp_path / "llama", llama())
    write_folder(tmp_path / "gpt2", gpt2())
    for name in ("llama", "gpt2"):
        loaded = load_pretrained(tmp_path / name, "cpu", torch.bfloat16)
        assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
        _, sampled = draw(loaded, 1.0)
        assert sampled.logprobs.dtype == torch.float32
        export(loaded.model, loaded.tokenizer, tmp_path / "out" / name)
        assert AutoModelForCausalLM.from_pretrained(tmp_path / "out" / name).dtype == torch.bfloat16


def spoil(folder: Path, what: str) -> None:
    if what == "no folder":
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    elif what == "no tokenizer":
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
    elif what == "half a weights file":
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    elif what == "a weight missing":
        tensors = load_file(folder / "model.safetensors")
        tensors.pop("model.norm.weight", None)
        tensors.pop("transformer.ln_f.weight", None)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    elif what == "no weights":
        (folder / "model.safetensors").unlink()
    elif what == "broken config":
        (folder / "config.json").write_text("{")
    elif what == "an unknown architecture":
        (folder / "config.json").write_text('{"model_type": "unheard-of"}')
    elif what == "no config":
        (folder / "config.json").unlink()


@pytest.mark.parametrize("config", [llama, gpt2])
@pytest.mark.parametrize(
    "what",
    [
        "no folder",
        "no config",
        "broken config",
        "an unknown architecture",
        "no tokenizer",
        "no weights",
        "half a weights file",
        "a weight missing",
    ],
)
def test_a_folder_that_cannot_be_used_is_an_input_error_of_one_line(
    what: str, config: Callable[[], PreTrainedConfig], tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    write_folder(folder, config())
    spoil(folder, what)
    with pytest.raises(InputError, match=r"^model\.base=.*base: .+") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_an_architecture_that_cannot_be_sampled_is_an_input_error(tmp_path: Path) -> None:
    write_folder(tmp_path, BloomConfig(vocab_size=61, hidden_size=32, n_layer=1, n_head=2))
    with pytest.raises(InputError, match="BloomForCausalLM takes no position_ids"):
        load(tmp_path)


def test_a_folder_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, llama())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text("raise SystemExit('code from a model folder was run')\n")
    with pytest.raises(InputError, match=r"model\.base"):
        load(tmp_path)


def test_a_wrapped_model_trains(tmp_path: Path) -> None:
    write_folder(tmp_path, gpt2())
    model = load(tmp_path).model
    score(model, texts(61, [4, 9]), texts(61, [11, 5], seed=1), 1.0).logprobs.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_initialisation_is_the_same_whatever_is_exported_between(tmp_path: Path) -> None:
    model = decoder(seed=5)
    export(model, word_tokenizer(), tmp_path)
    again = Decoder(LAPTOP)
    initialise(again, 5)
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), again.parameters(), strict=True))
