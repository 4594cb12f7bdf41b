"""A causal LM of transformers behind `LanguageModel`, and the check that sampling and scoring compute what it computes.

What `Decoder` does not compute itself runs here: any architecture of transformers that passes the check.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Cache, DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from siri.engines.local.model import cache_dtype, pad_left, pad_right, repeat_rows, require_room

REQUIRED_INPUTS = ("attention_mask", "position_ids", "past_key_values", "logits_to_keep")
PADDED_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)
"""Caches of layers that a masked position leaves as they are: attention's own. Recurrent states are not among them."""
AGREEMENT = 1e-3
"""Nats by which the log-probability of a token may differ by the way it is computed, in float32.

Ten times what rounding does to logits of usual size; a mistake in masks, positions or caches is a hundred times more.
"""


Reading = tuple[int, Tensor]
"""The first place read of a text, and the log-probabilities [places, V] after it and those that follow."""


class PretrainedModel(nn.Module):
    """A transformers causal LM behind `LanguageModel`; dropout stays off, in training too."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network.eval()
        self.context = context_of(network.config)
        self.pads = all(type(layer) in PADDED_LAYERS for layer in DynamicCache(config=network.config).layers)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.network.device
        return device

    @property
    def vocabulary(self) -> int:
        """Tokens that it can read."""
        return len(self.network.get_input_embeddings().weight)

    def forward(self, ids: Tensor, select: Tensor) -> Tensor:
        """Logits [N, V] at the flat positions `select` [N] of the right-padded batch `ids` [B, T].

        The head runs at these positions alone.
        """
        require_room(ids.shape[1], self.context)
        with self._selected(select):
            logits: Tensor = self.network(input_ids=ids, use_cache=False).logits
        return logits[0]

    @contextmanager
    def _selected(self, select: Tensor) -> Iterator[None]:
        """The head sees [1, N, width], the hidden states [B, T, width] at `select`: no argument asks it for that."""

        def narrow(head: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
            return (inputs[0].flatten(0, 1)[select][None],)

        hook = self.network.get_output_embeddings().register_forward_pre_hook(narrow)
        try:
            yield
        finally:
            hook.remove()

    def prefill(
        self, prompts: Sequence[Sequence[int]], copies: Sequence[int], room: int
    ) -> tuple[PretrainedRows, Tensor]:
        """Read every prompt once and continue each in `copies` rows (see `LanguageModel.prefill`)."""
        require_room(room, self.context)
        ids, mask = pad_left(prompts, self.device)
        if not self.pads and not bool(mask.all()):
            raise ValueError("a model with recurrent states reads prompts of one length at a time")
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        output = self.network(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=WrittenCache(config=self.network.config),
            use_cache=True,
            logits_to_keep=1,
        )
        rows = PretrainedRows(self, output.past_key_values, mask, mask.sum(1))
        row_of = repeat_rows(copies, self.device)
        rows.keep(row_of)
        return rows, output.logits[:, -1][row_of]


class PretrainedRows:
    """Rows continued by a transformers model: prompts padded on the left, positions counted from their first token."""

    def __init__(self, model: PretrainedModel, cache: Cache, mask: Tensor, lengths: Tensor) -> None:
        self.model = model
        self.cache = cache
        self.mask = mask
        self.lengths = lengths

    def decode(self, tokens: Tensor) -> Tensor:
        """Append one token [B] to every row; the logits [B, V] of the token after it."""
        self.mask = torch.cat((self.mask, torch.ones_like(self.mask[:, :1])), dim=1)
        logits: Tensor = self.model.network(
            input_ids=tokens[:, None],
            attention_mask=self.mask,
            position_ids=self.lengths[:, None],
            past_key_values=self.cache,
            use_cache=True,
        ).logits
        # A row that ended early may be decoded on, beyond the context; one still written never needs the last position.
        self.lengths = (self.lengths + 1).clamp(max=self.model.context - 1)
        return logits[:, -1]

    def keep(self, rows: Tensor) -> None:
        """Go on with the rows of these indices [K] only, in this order."""
        # reorder_cache takes fewer or repeated rows as well, and unlike batch_select_indices every cache layer has it.
        self.cache.reorder_cache(rows)
        self.mask, self.lengths = self.mask[rows], self.lengths[rows]


class WrittenCache(DynamicCache):  # type: ignore[misc]
    """transformers' cache, which grows with what is written, in the number format that attention computes in."""

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *rest: Any, **named: Any) -> Any:
        """Append keys and values [B, heads, T, size]; those of the whole layer."""
        keys, values = (states.to(cache_dtype(states)) for states in (key_states, value_states))
        return super().update(keys, values, layer_idx, *rest, **named)


def load_network(folder: Path, device: torch.device | str, dtype: torch.dtype) -> PretrainedModel:
    """A transformers causal LM; every weight must be in the folder.

    Raises ValueError for an architecture that cannot be sampled, or is sampled or scored otherwise than it computes.
    """
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


def context_of(config: PreTrainedConfig) -> int:
    """Most tokens in a text, `sys.maxsize` for a model without a limit.

    Of rotations that are others for longer texts (longrope) only those of the shorter ones are used: keys that a
    cache holds would have to be turned again where a text grows beyond them.
    """
    text = config.get_text_config()
    limits = [getattr(text, "max_position_embeddings", None)]
    rope = getattr(text, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        original = getattr(text, "original_max_position_embeddings", None)
        limits.append(rope.get("original_max_position_embeddings") or original)
    return min((limit for limit in limits if isinstance(limit, int)), default=sys.maxsize)


@torch.no_grad()
def check_agreement(model: PretrainedModel) -> None:
    """Raise ValueError unless sampling and scoring give the log-probabilities that the network gives a text alone.

    Two texts of different lengths are read one by one, side by side, and token by token from a cache that loses rows
    on the way. For float32 weights: others round by more than the check could tell from a mistake.
    """
    name, texts = type(model.network).__name__, _texts(model)
    try:
        alone = [_logprobs(model.network(input_ids=_row(model, text), use_cache=False).logits[0]) for text in texts]
        found = {"scored": _scored(model, texts), "sampled": _sampled(model, texts)}
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:  # by architecture
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{name} cannot be sampled: {reason}") from error
    for way, read in found.items():
        pairs = [(text[first : first + len(lines)], lines) for text, (first, lines) in zip(alone, read, strict=True)]
        worst = max(float((one - other).abs().max()) for one, other in pairs)
        if not worst <= AGREEMENT:
            raise ValueError(
                f"{name} cannot be used: {way} here, its log-probabilities are others than transformers computes, "
                f"by up to {worst:.2g}"
            )


def _texts(model: PretrainedModel) -> list[list[int]]:
    """A short and a longer text, of few common tokens."""
    room = min(model.context, 24)
    return [[(7 * place + start) % min(model.vocabulary, 97) for place in range(room - start)] for start in (0, 5)]


def _row(model: PretrainedModel, text: Sequence[int]) -> Tensor:
    return torch.tensor([text], device=model.device)


def _logprobs(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits.float(), dim=-1)


def _scored(model: PretrainedModel, texts: list[list[int]]) -> list[Reading]:
    """All places of the texts, padded on the right to one batch."""
    ids, lengths = pad_right(texts, model.device)
    places = [torch.arange(len(text), device=ids.device) + row * ids.shape[1] for row, text in enumerate(texts)]
    logprobs = _logprobs(model(ids, torch.cat(places)))
    return [(0, lines) for lines in torch.split(logprobs, lengths.tolist())]


def _sampled(model: PretrainedModel, texts: list[list[int]]) -> list[Reading]:
    """Places behind the first third of the texts, from the cache, side by side where the model's rows may be."""
    return _continued(model, texts) if model.pads else [_continued(model, [text])[0] for text in texts]


def _continued(model: PretrainedModel, texts: list[list[int]]) -> list[Reading]:
    """Texts read to a third and continued in two rows each, of which one goes half-way."""
    begun = [len(text) // 3 for text in texts]
    begins = [text[:count] for text, count in zip(texts, begun, strict=True)]
    steps = min(len(text) - count for text, count in zip(texts, begun, strict=True))
    rows, logits = model.prefill(begins, [2] * len(texts), max(map(len, texts)))
    read, copies = [_logprobs(logits)[::2]], 2
    for step in range(steps):
        if step == steps // 2:
            rows.keep(torch.arange(0, 2 * len(texts), 2, device=logits.device))
            copies = 1
        tokens = torch.tensor([text[count + step] for text, count in zip(texts, begun, strict=True)])
        read.append(_logprobs(rows.decode(tokens.to(logits.device).repeat_interleave(copies)))[::copies])
    lines = torch.stack(read, dim=1)
    return [(count - 1, lines[row]) for row, count in enumerate(begun)]
