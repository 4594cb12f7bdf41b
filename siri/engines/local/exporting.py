"""A model written as a Hugging Face folder, which transformers, vLLM and `pretrained` load as it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerBase, Qwen2Config

from siri.engines.local.model import Decoder
from siri.engines.local.network import PretrainedModel
from siri.engines.local.pretrained import LoadedModel, state_tensors
from siri.engines.model_folder import copy_beside

MAX_SHARD = 50 * 10**9
"""Bytes of weights in one file; what is larger is written as shards and an index."""


def export(
    model: Decoder | PretrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    eos_ids: Sequence[int] | None = None,
) -> None:
    """Write a folder that `AutoModelForCausalLM` and `AutoTokenizer` load as it is: config, safetensors, tokenizer.

    `eos_ids` are the end tokens that generation stops at; left out, the tokenizer's one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    _export_model(model, tokenizer, [tokenizer.eos_token_id] if eos_ids is None else list(eos_ids), folder)


def export_loaded(loaded: LoadedModel, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write a model that was loaded, its weights rounded to `dtype` or, without one, as they are.

    What stood beside its weights, tokenizer and templates, comes along as it came.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _export_model(loaded.model, loaded.tokenizer, list(loaded.eos_ids), folder, dtype)
    copy_beside(loaded.folder, folder)


def _export_model(
    model: Decoder | PretrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ends: list[int],
    folder: Path,
    dtype: torch.dtype | None = None,
) -> None:
    if isinstance(model, PretrainedModel):
        weights = state_tensors(model, dtype)
        model.network.save_pretrained(folder, state_dict=weights, max_shard_size=MAX_SHARD)
        if dtype is not None:
            _name_dtype(folder / "config.json", dtype)
        return
    write_config(model, tokenizer, ends, folder, dtype or model.embedding.dtype)
    save_torch_state_dict(state_tensors(model, dtype), folder, max_shard_size=MAX_SHARD)
    generation = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
    )
    generation.save_pretrained(folder)


def _name_dtype(path: Path, dtype: torch.dtype) -> None:
    """Have a config.json name the number format of the weights beside it: transformers wrote that of the model."""
    settings = json.loads(path.read_text()) | {"dtype": str(dtype).removeprefix("torch.")}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")


def write_config(
    decoder: Decoder, tokenizer: PreTrainedTokenizerBase, ends: list[int], folder: Path, dtype: torch.dtype
) -> None:
    """Write a decoder's config.json: Qwen2's where only q, k and v have a bias, else Llama's."""
    shape = decoder.shape
    settings = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.norm_epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "tie_word_embeddings": shape.tied_head,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": ends if len(ends) > 1 else ends[0],
        "pad_token_id": tokenizer.pad_token_id,
        "dtype": str(dtype).removeprefix("torch."),
    }
    if shape.attention_bias == "qkv":
        config = Qwen2Config(architectures=["Qwen2ForCausalLM"], **settings)
    else:
        bias = shape.attention_bias == "qkvo"
        config = LlamaConfig(architectures=["LlamaForCausalLM"], attention_bias=bias, **settings)
    # transformers 4, and what is built on it, looks for rope_theta here and would silently take 10,000 without it.
    written = {**config.to_dict(), "rope_theta": shape.rope_theta}
    (folder / "config.json").write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
