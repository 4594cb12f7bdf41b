"""Hugging Face folders in and out: a plain Llama or Qwen2 becomes a `Decoder`, other causal LMs run in transformers.

Weights travel under Hugging Face's names, and no code from a model folder is ever run.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Cache,
    GenerationConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
)

from siri.engines.local.model import AttentionBias, Block, Decoder, ModelShape, pad_left, repeat_rows, require_room
from siri.engines.model_folder import copy_beside, require_data, weight_files
from siri.errors import InputError
from siri.reading import expand

T = TypeVar("T")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
MAX_SHARD = 50 * 10**9
"""Bytes of weights in one file; what is larger is written as shards and an index."""
REQUIRED_INPUTS = ("attention_mask", "position_ids", "past_key_values", "logits_to_keep")


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


class PretrainedModel(nn.Module):
    """A transformers causal LM behind `LanguageModel`; dropout stays off, in training too."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network.eval()

    @property
    def device(self) -> torch.device:
        device: torch.device = self.network.device
        return device

    def forward(self, ids: Tensor, select: Tensor) -> Tensor:
        """Logits [N, V] at the flat positions `select` [N] of the right-padded batch `ids` [B, T].

        The head runs at every position selected in any row.
        """
        require_room(ids.shape[1], self.network.config.max_position_embeddings)
        kept, place = torch.unique(select % ids.shape[1], return_inverse=True)
        logits: Tensor = self.network(input_ids=ids, use_cache=False, logits_to_keep=kept).logits
        return logits[select // ids.shape[1], place]

    def prefill(
        self, prompts: Sequence[Sequence[int]], copies: Sequence[int], room: int
    ) -> tuple[PretrainedRows, Tensor]:
        """Read every prompt once and continue each in `copies` rows (see `LanguageModel.prefill`)."""
        require_room(room, self.network.config.max_position_embeddings)
        ids, mask = pad_left(prompts, self.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        output = self.network(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1
        )
        rows = PretrainedRows(self.network, output.past_key_values, mask, mask.sum(1))
        row_of = repeat_rows(copies, self.device)
        rows.keep(row_of)
        return rows, output.logits[:, -1][row_of]


class PretrainedRows:
    """Rows continued by a transformers model: prompts padded on the left, positions counted from their first token."""

    def __init__(self, network: PreTrainedModel, cache: Cache, mask: Tensor, lengths: Tensor) -> None:
        self.network = network
        self.cache = cache
        self.mask = mask
        self.lengths = lengths

    def decode(self, tokens: Tensor) -> Tensor:
        """Append one token [B] to every row; the logits [B, V] of the token after it."""
        self.mask = torch.cat((self.mask, torch.ones_like(self.mask[:, :1])), dim=1)
        logits: Tensor = self.network(
            input_ids=tokens[:, None],
            attention_mask=self.mask,
            position_ids=self.lengths[:, None],
            past_key_values=self.cache,
            use_cache=True,
        ).logits
        # A row that ended early may be decoded on, beyond the context; one still written never needs the last position.
        self.lengths = (self.lengths + 1).clamp(max=self.network.config.max_position_embeddings - 1)
        return logits[:, -1]

    def keep(self, rows: Tensor) -> None:
        """Go on with the rows of these indices [K] only, in this order."""
        # reorder_cache takes fewer or repeated rows as well, and unlike batch_select_indices every cache layer has it.
        self.cache.reorder_cache(rows)
        self.mask, self.lengths = self.mask[rows], self.lengths[rows]


def load_pretrained(folder: Path, device: torch.device | str, dtype: torch.dtype) -> LoadedModel:
    """Read a folder with a Hugging Face causal LM (config.json, weights, tokenizer).

    Raises InputError naming `model.base` when something is missing, cannot be read or is not supported.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"model.base={folder}: not a folder with a Hugging Face model (it has no config.json)")
    require_data(folder)
    config = _attempt(folder, "config", lambda: load_config(folder))
    tokenizer = read_tokenizer(folder)
    eos_ids = _attempt(folder, "generation config", lambda: read_eos_ids(folder, config, tokenizer))
    weight_files(folder)
    shape = decoder_shape(config)
    model: Decoder | PretrainedModel
    if shape is not None:
        model = _attempt(folder, "weights", lambda: load_decoder(folder, shape, device, dtype))
    else:
        model = _attempt(folder, "model", lambda: load_network(folder, device, dtype))
    pad_ids = (tokenizer.pad_token_id, config.pad_token_id, eos_ids[0])
    pad_id = next(token for token in pad_ids if token is not None)
    return LoadedModel(folder, model, tokenizer, config.max_position_embeddings, eos_ids, pad_id)


def model_folder(base: str) -> Path:
    """The folder that `model.base` names: a folder itself, or a hub name's files, fetched unless they are here already.

    Raises InputError for anything else, and for a name that cannot be fetched.
    """
    folder = expand(base, "model.base")
    if os.path.isdir(folder):
        return folder
    if not HUB_NAME.fullmatch(base):
        raise InputError(f"model.base={base}: neither `laptop` nor a folder with a model nor a hub name `owner/name`")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(base, allow_patterns=["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]))
    except (OSError, ValueError) as error:
        raise InputError(
            f"model.base={base}: cannot be fetched from the hub ({type(error).__name__}); where it can be reached, "
            f"`hf download {base} --local-dir FOLDER`, then name that folder"
        ) from error


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
    chosen = [config.eos_token_id, tokenizer.eos_token_id]
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


def load_network(folder: Path, device: torch.device | str, dtype: torch.dtype) -> PretrainedModel:
    """A transformers causal LM; every weight must be in the folder."""
    network, found = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        local_files_only=True,
        output_loading_info=True,
        use_safetensors=True,
        trust_remote_code=False,
    )
    if found["missing_keys"]:
        raise ValueError(f"weights are missing: {', '.join(sorted(found['missing_keys'])[:3])}")
    inputs = inspect.signature(network.forward).parameters
    lacking = [name for name in REQUIRED_INPUTS if name not in inputs]
    if lacking:
        raise ValueError(f"{type(network).__name__} takes no {', '.join(lacking)}, which sampling needs")
    network.to(device)
    for parameter in network.parameters():
        # Mapped from a file it may lie at an odd address, and sums of unaligned vectors round differently.
        parameter.data = parameter.data.clone()
    return PretrainedModel(network)


def state_tensors(model: Decoder | PretrainedModel) -> dict[str, Tensor]:
    """Copies of all weights, on the CPU, by Hugging Face's names; a tied head only once."""
    return {name: _copy(tensor) for name, tensor in named_weights(model)}


def _copy(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())


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


def export_loaded(loaded: LoadedModel, folder: Path) -> None:
    """Write a model that was loaded; what stood beside its weights, tokenizer and templates too, as it came."""
    folder.mkdir(parents=True, exist_ok=True)
    _export_model(loaded.model, loaded.tokenizer, list(loaded.eos_ids), folder)
    copy_beside(loaded.folder, folder)


def _export_model(
    model: Decoder | PretrainedModel, tokenizer: PreTrainedTokenizerBase, ends: list[int], folder: Path
) -> None:
    if isinstance(model, PretrainedModel):
        model.network.save_pretrained(folder, max_shard_size=MAX_SHARD)
        return
    write_config(model, tokenizer, ends, folder)
    save_torch_state_dict(state_tensors(model), folder, max_shard_size=MAX_SHARD)
    generation = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
    )
    generation.save_pretrained(folder)


def write_config(decoder: Decoder, tokenizer: PreTrainedTokenizerBase, ends: list[int], folder: Path) -> None:
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
        "dtype": str(decoder.embedding.dtype).removeprefix("torch."),
    }
    if shape.attention_bias == "qkv":
        config = Qwen2Config(architectures=["Qwen2ForCausalLM"], **settings)
    else:
        bias = shape.attention_bias == "qkvo"
        config = LlamaConfig(architectures=["LlamaForCausalLM"], attention_bias=bias, **settings)
    # transformers 4, and what is built on it, looks for rope_theta here and would silently take 10,000 without it.
    written = {**config.to_dict(), "rope_theta": shape.rope_theta}
    (folder / "config.json").write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
