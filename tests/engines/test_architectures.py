"""Every architecture that loads is sampled and scored as transformers computes it; what is not is refused when opened.

The models are tiny and random, saved as they would come from the Hub, and loaded the way `model.base=FOLDER` is.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel

from siri.config import load as load_config
from siri.engines import open_engine
from siri.engines.local.forward import score
from siri.engines.local.network import PretrainedModel
from siri.engines.local.pretrained import LoadedModel, load_pretrained
from siri.engines.local.sampler import Sampled, sample
from siri.engines.local.uniforms import Stream
from siri.errors import InputError
from siri.problems import load_splits
from tests.engines.test_local_model import texts
from tests.engines.test_pretrained import word_tokenizer

TOLERANCE = 1e-4
"""Nats between the log-probabilities of a token here and in transformers."""
VOCABULARY = 61
LENGTHS, BUDGETS = [3, 17, 1, 17, 9], [9, 5, 12, 7, 4]
GROUP = 2
Make = Callable[[], PreTrainedConfig]


def config(name: str, **settings: Any) -> PreTrainedConfig:
    """A config of transformers, of a few thousand parameters unless `settings` say otherwise; None leaves one out."""
    sizes = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "max_position_embeddings": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCABULARY}
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    chosen = {**sizes, **heads, **ends, **settings}
    kept = {key: value for key, value in chosen.items() if value is not None or key == "pad_token_id"}
    return getattr(transformers, f"{name}Config")(**kept)  # type: ignore[no-any-return]


def rope(kind: str, **settings: Any) -> dict[str, Any]:
    common = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
    return {**common, **settings}


GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "hidden_size": None, "num_hidden_layers": None}
GPT2 |= {"num_attention_heads": None, "max_position_embeddings": None, "num_key_value_heads": None}
EXPERTS = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
SHARED = {**EXPERTS, "shared_expert_intermediate_size": 16}
WINDOW = {"sliding_window": 8, "head_dim": 8}
GEMMA = {**WINDOW, "query_pre_attn_scalar": 8, "layer_types": ["sliding_attention", "full_attention"]}
LINEAR = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
LINEAR |= {"layer_types": ["linear_attention", "full_attention"], "head_dim": 8}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION |= {"image_size": 28, "patch_size": 14}


def gemma3_with_pictures() -> PreTrainedConfig:
    text = config("Gemma3Text", **GEMMA).to_dict()
    marks = {"image_token_index": 58, "boi_token_index": 59, "eoi_token_index": 60}
    return transformers.Gemma3Config(text_config=text, vision_config=VISION, mm_tokens_per_image=4, **marks)


ARCHITECTURES: dict[str, Make] = {
    "Llama, grouped queries": lambda: config("Llama"),
    "Llama, tied head": lambda: config("Llama", tie_word_embeddings=True),
    "Llama, llama3 rope": lambda: config(
        "Llama", rope_parameters=rope("llama3", low_freq_factor=1.0, high_freq_factor=4.0)
    ),
    "Llama, yarn rope": lambda: config("Llama", rope_parameters=rope("yarn")),
    "Qwen2": lambda: config("Qwen2"),
    "Qwen2, sliding window": lambda: config("Qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=1),
    "Qwen3": lambda: config("Qwen3", head_dim=8),
    "Qwen2-MoE": lambda: config("Qwen2Moe", **SHARED),
    "Qwen3-MoE": lambda: config("Qwen3Moe", head_dim=8, **EXPERTS),
    "Gemma2": lambda: config("Gemma2", **GEMMA),
    "Gemma3, text": lambda: config("Gemma3Text", **GEMMA),
    "Gemma3, with pictures": gemma3_with_pictures,
    "GPT-NeoX": lambda: config("GPTNeoX", num_key_value_heads=None),
    "Mistral, sliding window": lambda: config("Mistral", sliding_window=8),
    "Phi3": lambda: config("Phi3"),
    "Phi3, longrope": lambda: config(
        "Phi3",
        original_max_position_embeddings=32,
        rope_parameters=rope(
            "longrope", original_max_position_embeddings=32, short_factor=[1.0] * 4, long_factor=[4.0] * 4
        ),
    ),
    "GPT2": lambda: config("GPT2", **GPT2),
    "OPT": lambda: config("OPT", ffn_dim=40, word_embed_proj_dim=32, num_key_value_heads=None),
    "OLMo2": lambda: config("Olmo2"),
    "SmolLM3": lambda: config("SmolLM3"),
    "Granite": lambda: config("Granite", embedding_multiplier=2.0, logits_scaling=2.0, attention_multiplier=0.3),
    "Qwen3-Next": lambda: config("Qwen3Next", **LINEAR, **SHARED),
    "LFM2, convolutions": lambda: config("Lfm2", layer_types=["conv", "full_attention"]),
}
VARIANTS: dict[str, Make] = {"a Decoder": ARCHITECTURES["Qwen2"], "a model of transformers": ARCHITECTURES["Qwen3"]}
UNSAMPLED: dict[str, tuple[Make, str]] = {
    "Bloom": (lambda: config("Bloom", n_layer=2, n_head=4), "takes no position_ids"),
    "Mamba": (lambda: config("Mamba", state_size=8), "takes no position_ids, past_key_values"),
    "BERT, which looks ahead": (lambda: config("Bert"), "BertLMHeadModel cannot be"),
    "MiniMax, with a cache of its own": (
        lambda: config("MiniMax", head_dim=8, num_local_experts=2, layer_types=["linear_attention", "full_attention"]),
        "MiniMaxForCausalLM cannot be",
    ),
}


def write(folder: Path, described: PreTrainedConfig, dtype: torch.dtype = torch.float32, shard: str = "5GB") -> None:
    """A folder as it would come from the Hub, with weights large enough for logits to matter."""
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(described)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.15) if parameter.ndim > 1 else parameter.add_(torch.randn_like(parameter) * 0.1)
    network.to(dtype).save_pretrained(folder, max_shard_size=shard)
    word_tokenizer().save_pretrained(folder)


def load(folder: Path) -> tuple[LoadedModel, PreTrainedModel]:
    """The model as a run loads it, and as transformers does."""
    return load_pretrained(folder, "cpu", torch.float32), reference(folder)


def reference(folder: Path) -> PreTrainedModel:
    network: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return network.eval()


@dataclass(frozen=True)
class Drawn:
    """Prompts of different lengths, and GROUP responses to each."""

    prompts: list[list[int]]
    sampled: Sampled

    @property
    def rows(self) -> list[tuple[list[int], list[int]]]:
        """Prompt and response of every row."""
        written = zip(self.sampled.tokens, self.sampled.lengths.tolist(), strict=True)
        return [(self.prompts[row // GROUP], tokens[:length].tolist()) for row, (tokens, length) in enumerate(written)]


def draw(loaded: LoadedModel, temperature: float) -> Drawn:
    prompts = texts(VOCABULARY, LENGTHS)
    settings: dict[str, Any] = {"temperature": temperature, "eos_ids": loaded.eos_ids, "pad_id": loaded.pad_id}
    stream = Stream(0, range(len(prompts)))
    sampled = sample(loaded.model, prompts, BUDGETS, group_size=GROUP, stream=stream, rows_at_once=8, **settings)
    return Drawn(prompts, sampled)


@torch.no_grad()
def logprobs_alone(network: PreTrainedModel, prompt: list[int], response: list[int]) -> Tensor:
    """Log-probabilities of a response's tokens by one forward pass over its text, without padding or cache."""
    logits = network(input_ids=torch.tensor([[*prompt, *response]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits.float(), dim=-1).gather(1, torch.tensor(response)[:, None])[:, 0]


def check_greedy(loaded: LoadedModel, network: PreTrainedModel) -> None:
    """Greedy sampling writes what `generate` does, to each prompt alone."""
    for row, (prompt, written) in enumerate(draw(loaded, 0.0).rows):
        if row % GROUP == 0:
            ids = torch.tensor([prompt])
            settings: dict[str, Any] = {"eos_token_id": list(loaded.eos_ids), "pad_token_id": loaded.pad_id}
            budget = BUDGETS[row // GROUP]
            expected = network.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=budget, do_sample=False, **settings
            )
            assert written == expected[0, len(prompt) :].tolist()


def check_logprobs(loaded: LoadedModel, network: PreTrainedModel) -> None:
    """What sampling and `score` say of each token is what transformers says of its text alone."""
    drawn = draw(loaded, 1.0)
    prompts, responses = zip(*drawn.rows, strict=True)
    with torch.no_grad():
        scored = score(loaded.model, prompts, responses, 1.0).logprobs
    for row, (prompt, response) in enumerate(drawn.rows):
        expected = logprobs_alone(network, prompt, response)
        count = len(response)
        torch.testing.assert_close(drawn.sampled.logprobs[row, :count], expected, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(scored[row, :count], expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_is_sampled_and_scored_as_transformers_computes_it(name: str, tmp_path: Path) -> None:
    write(tmp_path, ARCHITECTURES[name]())
    loaded, network = load(tmp_path)
    check_greedy(loaded, network)
    check_logprobs(loaded, network)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sharded_weights_of_either_format_are_read_whole(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    write(tmp_path, VARIANTS[name](), dtype, shard="12KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    loaded, network = load(tmp_path)
    check_greedy(loaded, network)
    check_logprobs(loaded, network)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_model_without_a_padding_token_is_sampled_all_the_same(name: str, tmp_path: Path) -> None:
    described = VARIANTS[name]()
    described.pad_token_id = None
    write(tmp_path, described)
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (tmp_path / file).exists():
            settings = json.loads((tmp_path / file).read_text())
            settings.pop("pad_token", None)
            (tmp_path / file).write_text(json.dumps(settings))
    loaded, network = load(tmp_path)
    assert loaded.pad_id == loaded.eos_ids[0]
    check_greedy(loaded, network)
    check_logprobs(loaded, network)


@pytest.mark.parametrize("name", VARIANTS)
def test_each_of_two_end_tokens_ends_a_response(name: str, tmp_path: Path) -> None:
    write(tmp_path, VARIANTS[name]())
    free = draw(load(tmp_path)[0], 0.0).rows[4][1]
    ends = [2, free[1]]
    GenerationConfig(eos_token_id=ends).save_pretrained(tmp_path)
    loaded, network = load(tmp_path)
    assert loaded.eos_ids == tuple(ends)
    drawn = draw(loaded, 0.0)
    assert drawn.rows[4][1] == free[: free.index(free[1]) + 1]
    assert bool(drawn.sampled.finished[4])
    check_greedy(loaded, network)


@pytest.mark.parametrize("name", ["Qwen2", "Qwen3"])
def test_a_vocabulary_padded_beyond_the_tokenizer_is_sampled_and_decoded(name: str, tmp_path: Path) -> None:
    write(tmp_path, config(name, vocab_size=2 * VOCABULARY, head_dim=8))
    loaded, network = load(tmp_path)
    assert len(loaded.tokenizer) < 2 * VOCABULARY
    check_greedy(loaded, network)
    check_logprobs(loaded, network)
    beyond = [row for row in draw(loaded, 1.0).rows if max(row[1]) >= len(loaded.tokenizer)]
    assert beyond
    assert all(isinstance(loaded.tokenizer.decode(response), str) for _, response in beyond)


def test_prompts_of_different_lengths_are_never_padded_for_recurrent_states(tmp_path: Path) -> None:
    write(tmp_path, ARCHITECTURES["Qwen3-Next"]())
    loaded, _ = load(tmp_path)
    assert isinstance(loaded.model, PretrainedModel)
    assert not loaded.model.pads
    with pytest.raises(ValueError, match="one length at a time"):
        loaded.model.prefill(texts(VOCABULARY, [3, 4]), [1, 1], 8)


def test_rotations_that_change_with_a_text_s_length_limit_the_context(tmp_path: Path) -> None:
    write(tmp_path, ARCHITECTURES["Phi3, longrope"]())
    loaded, _ = load(tmp_path)
    assert loaded.context == 32
    assert reference(tmp_path).config.max_position_embeddings == 64


def refused(folder: Path, match: str) -> None:
    """A run is refused in one line when its base is made, before anything trains."""
    run = load_config("laptop", [f"model.base={folder}", "schedule.max_budget=20", "schedule.min_budget=10"])
    engine = open_engine(run, load_splits(run.problems).train)
    with pytest.raises(InputError, match=match) as caught:
        engine.make_base(folder.parent / "made")
    assert str(caught.value).startswith(f"model.base={folder}: ")
    assert "\n" not in str(caught.value)
    assert not (folder.parent / "made").exists()


@pytest.mark.parametrize("name", UNSAMPLED)
def test_what_cannot_be_sampled_is_refused_when_it_is_opened(name: str, tmp_path: Path) -> None:
    make, match = UNSAMPLED[name]
    write(tmp_path / "base", make())
    refused(tmp_path / "base", match)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_weights_that_are_not_finite_are_refused_when_opened(name: str, value: str, tmp_path: Path) -> None:
    write(tmp_path / "base", VARIANTS[name]())
    path = tmp_path / "base" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.down_proj.weight"][3, 5] = float(value)
    save_file(tensors, path, metadata={"format": "pt"})
    refused(tmp_path / "base", r"its weights cannot be used: model\.layers\.1\.mlp\.down_proj\.weight has values")


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("ends", [61, -1, [2, 400]])
def test_an_end_token_beyond_the_vocabulary_is_refused_when_opened(
    name: str, ends: int | list[int], tmp_path: Path
) -> None:
    write(tmp_path / "base", VARIANTS[name]())
    path = tmp_path / "base" / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": ends}))
    refused(tmp_path / "base", r"its end token cannot be used: eos_token_id=\S+ is none of the model's 61 tokens")
