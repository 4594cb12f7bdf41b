"""Hugging Face folders in and out: a plain Llama or Qwen2 becomes a `Decoder`, other causal LMs run in transformers.

Weights travel under Hugging Face's names, and no code from a model folder is ever run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from siri.engines.local.model import AttentionBias, Block, Decoder, ModelShape
from siri.engines.local.network import PretrainedModel, check_agreement, context_of, load_network
from siri.engines.model_folder import require_data, weight_files
from siri.errors import InputError
from siri.reading import expand, read_object

COMMIT = re.compile("[0-9a-f]{40}")
T = TypeVar("T")
HUB_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w.-]+))?")


@dataclass(frozen=True)
class LoadedModel:
    """A causal LM with what sampling needs to know of it: most tokens in a text, end tokens, and a padding token."""

    folder: Path
    """Where it came from, with what stands beside its weights."""
    model: Decoder | PretrainedModel
    tokenizer: PreTrainedTokenizerBase
    context: int
    eos_ids: tuple[int, ...]
    pad_id: int

    def require_readable(self, prompt: Sequence[int], problem: str) -> None:
        """Raise InputError for a prompt with a token that the model does not have, though its tokenizer does."""
        if prompt and max(prompt) >= self.model.vocabulary:
            raise InputError(
                f"model.base={self.folder}: the prompt of problem {problem} has token {max(prompt)} of its tokenizer, "
                f"which is none of the model's {self.model.vocabulary}"
            )


def load_pretrained(folder: Path, device: torch.device | str, dtype: torch.dtype) -> LoadedModel:
    """Read a folder with a Hugging Face causal LM (config.json, weights, tokenizer).

    Raises InputError naming `model.base` when something is missing, cannot be read or is not supported.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"model.base={folder}: not a folder with a Hugging Face model (it has no config.json)")
    require_data(folder)
    config = read_config(folder)
    tokenizer = read_tokenizer(folder)
    eos_ids = _attempt(folder, "generation config", lambda: read_eos_ids(folder, config, tokenizer))
    weight_files(folder)
    shape = decoder_shape(config)
    model: Decoder | PretrainedModel
    if shape is not None:
        model = _attempt(folder, "weights", lambda: load_decoder(folder, shape, device, dtype))
    else:
        model = _attempt(folder, "model", lambda: load_network(folder, device, dtype))
    _attempt(folder, "weights", lambda: check_finite(model))
    _attempt(folder, "end token", lambda: check_ends(eos_ids, model))
    if isinstance(model, PretrainedModel) and dtype == torch.float32:
        wrapped = model
        _attempt(folder, "model", lambda: check_agreement(wrapped))
    pad_ids = (tokenizer.pad_token_id, setting(config, "pad_token_id"), eos_ids[0])
    pad_id = next(token for token in pad_ids if token is not None and 0 <= token < model.vocabulary)
    return LoadedModel(folder, model, tokenizer, context_of(config), eos_ids, pad_id)


def check_finite(model: Decoder | PretrainedModel) -> None:
    """Raise ValueError for weights that are not numbers, or infinite: the text of such a model is one token."""
    for name, weight in named_weights(model):
        if weight.is_floating_point() and not bool(torch.isfinite(weight).all()):
            raise ValueError(f"{name} has values that are not finite (NaN or infinite)")


def check_ends(eos_ids: Sequence[int], model: Decoder | PretrainedModel) -> None:
    """Raise ValueError for an end token that the model cannot write."""
    for token in eos_ids:
        if not 0 <= token < model.vocabulary:
            raise ValueError(f"eos_token_id={token} is none of the model's {model.vocabulary} tokens")


def model_folder(base: str) -> Path:
    """The folder that `model.base` names: a folder itself, or a hub name's files, fetched unless they are here already.

    `owner/name@REVISION` is a branch, a tag or a commit of it.

    Raises InputError for anything else, and for a name that cannot be fetched.
    """
    folder = expand(base, "model.base")
    if os.path.isdir(folder):
        return folder
    found = HUB_NAME.fullmatch(base)
    if found is None:
        raise InputError(f"model.base={base}: neither `laptop` nor a folder with a model nor a hub name `owner/name`")
    from httpx import HTTPError

    name, revision = found.groups()
    try:
        return _fetch(name, revision)
    except (OSError, ValueError, HTTPError) as error:
        raise InputError(
            f"model.base={base}: cannot be fetched from the hub ({type(error).__name__}); where it can be reached, "
            f"`hf download {name} --local-dir FOLDER`, then name that folder"
        ) from error


def _fetch(name: str, revision: str | None) -> Path:
    """The folder of a hub name's files; a commit that is here needs no hub that can be reached."""
    from httpx import HTTPError
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except (OSError, HTTPError):
        if revision is None or not COMMIT.fullmatch(revision):
            raise
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted, local_files_only=True))


def pinned(base: str) -> str:
    """`model.base` as it names one content for good: a hub name with the commit that its files are of.

    Raises InputError as `model_folder` does.
    """
    folder = model_folder(base)
    found = HUB_NAME.fullmatch(base)
    return base if found is None or os.path.isdir(expand(base, "model.base")) else f"{found[1]}@{folder.name}"


def _attempt(folder: Path, part: str, read: Callable[[], T]) -> T:
    # Broken files raise half a dozen unrelated errors in tokenizers, safetensors and transformers.
    try:
        return read()
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"model.base={folder}: its {part} cannot be used: {reason}") from error


def load_config(folder: Path) -> PreTrainedConfig:
    """A folder's config.json."""
    config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return config


def read_config(folder: Path) -> PreTrainedConfig:
    """A folder's config.json. Raises InputError naming `model.base` when it cannot be used."""
    require_data(folder)
    read_object(folder / "config.json", f"model.base={folder}: config.json")
    return _attempt(folder, "config", lambda: load_config(folder))


def setting(config: PreTrainedConfig, name: str) -> Any:
    """A setting of a model that also reads pictures may stand with its text model alone; None where neither has it."""
    own = getattr(config, name, None)
    return getattr(config.get_text_config(), name, None) if own is None else own


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """A folder's tokenizer. Raises InputError naming `model.base` when it cannot be used."""
    require_data(folder)
    return _attempt(folder, "tokenizer", lambda: load_tokenizer(folder))


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """A folder's tokenizer; transformers makes an empty one, without a word, where the files are missing."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ValueError("it has no vocabulary")
    return tokenizer


def read_eos_ids(folder: Path, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens that end a response: generation_config.json's, else config.json's, else the tokenizer's."""
    chosen = [setting(config, "eos_token_id"), tokenizer.eos_token_id]
    if (folder / "generation_config.json").is_file():
        chosen.insert(0, load_generation_config(folder).eos_token_id)
    for ids in chosen:
        if ids is not None:
            return (ids,) if isinstance(ids, int) else tuple(ids)
    raise ValueError("no end token (eos_token_id) is named")


def load_generation_config(folder: Path) -> GenerationConfig:
    """A folder's generation_config.json."""
    return GenerationConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def decoder_shape(config: PreTrainedConfig) -> ModelShape | None:
    """The shape of the `Decoder` that computes what this config's model computes; None where there is none."""
    if config.architectures not in (["LlamaForCausalLM"], ["Qwen2ForCausalLM"]):
        return None
    rope = config.rope_parameters
    special = (
        rope["rope_type"] != "default"
        or rope.get("partial_rotary_factor", 1.0) != 1.0
        or config.hidden_act != "silu"
        or getattr(config, "mlp_bias", False)
        or getattr(config, "sliding_window", None) is not None
        or hasattr(config, "quantization_config")
    )
    if special:
        return None
    llama_bias: AttentionBias = "qkvo" if getattr(config, "attention_bias", False) else "none"
    return ModelShape(
        vocabulary=config.vocab_size,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        feed_forward=config.intermediate_size,
        context=config.max_position_embeddings,
        rope_theta=rope["rope_theta"],
        norm_epsilon=config.rms_norm_eps,
        attention_bias="qkv" if config.model_type == "qwen2" else llama_bias,
        tied_head=config.tie_word_embeddings,
    )


def load_decoder(folder: Path, shape: ModelShape, device: torch.device | str, dtype: torch.dtype) -> Decoder:
    """A `Decoder` with a folder's weights; names and sizes must match exactly.

    Left out are what older files hold twice: rotation tables, and the head where it is tied to the embedding.
    """
    tensors = {name: tensor for path in weight_files(folder) for name, tensor in load_file(path).items()}
    doubled = [name for name in tensors if name.endswith("rotary_emb.inv_freq")]
    for name in [*doubled, *(["lm_head.weight"] if shape.tied_head else [])]:
        tensors.pop(name, None)
    decoder = Decoder(shape, device, dtype)
    load_tensors(decoder, tensors)
    return decoder


def state_tensors(model: Decoder | PretrainedModel, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Copies of all weights, on the CPU, by Hugging Face's names, rounded to `dtype`; a tied head only once."""
    return {name: _copy(tensor, dtype) for name, tensor in named_weights(model)}


def _copy(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    rounded = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=rounded).copy_(tensor.detach())


@torch.no_grad()
def load_tensors(model: Decoder | PretrainedModel, tensors: Mapping[str, Tensor]) -> None:
    """Copy weights, by Hugging Face's names, into a model's own memory; optimizers on its parameters stay valid.

    Raises ValueError, before anything is written, unless names and sizes match exactly.
    """
    weights = dict(named_weights(model))
    odd = sorted(weights.keys() ^ tensors.keys())
    odd += [name for name in weights.keys() & tensors.keys() if weights[name].shape != tensors[name].shape]
    if odd:
        raise ValueError(f"{len(odd)} weights are missing, unknown or of another size: {', '.join(odd[:3])}")
    for name, weight in weights.items():
        weight.copy_(tensors[name])


def named_weights(model: Decoder | PretrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Every weight by Hugging Face's name, as views of the model's own memory; a tied head only once."""
    if isinstance(model, Decoder):
        yield from _decoder_weights(model)
        return
    seen: set[int] = set()
    for name, tensor in model.network.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            yield name, tensor


def _decoder_weights(decoder: Decoder) -> Iterator[tuple[str, Tensor]]:
    yield "model.embed_tokens.weight", decoder.embedding.data
    for index, block in enumerate(decoder.layers()):
        for name, tensor in _block_weights(block):
            yield f"model.layers.{index}.{name}", tensor.data
    yield "model.norm.weight", decoder.norm.data
    if decoder.head is not None:
        yield "lm_head.weight", decoder.head.data


def _block_weights(block: Block) -> Iterator[tuple[str, Tensor]]:
    shape = block.shape
    widths = [shape.query_width, shape.key_width, shape.key_width]
    yield "input_layernorm.weight", block.attention_norm
    for name, part in zip("qkv", torch.split(block.qkv, widths), strict=True):
        yield f"self_attn.{name}_proj.weight", part
    if block.qkv_bias is not None:
        for name, part in zip("qkv", torch.split(block.qkv_bias, widths), strict=True):
            yield f"self_attn.{name}_proj.bias", part
    yield "self_attn.o_proj.weight", block.out
    if block.out_bias is not None:
        yield "self_attn.o_proj.bias", block.out_bias
    yield "post_attention_layernorm.weight", block.feed_norm
    gate, up = torch.split(block.gate_up, shape.feed_forward)
    yield "mlp.gate_proj.weight", gate
    yield "mlp.up_proj.weight", up
    yield "mlp.down_proj.weight", block.down


def weights_dtype(folder: Path) -> torch.dtype:
    """The number format that holds a folder's weights without loss: bfloat16 where all of them are, else float32."""
    formats: set[str] = set()
    for path in weight_files(folder):
        with safe_open(path, "pt") as tensors:
            formats |= {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    return torch.bfloat16 if formats == {"BF16"} else torch.float32
