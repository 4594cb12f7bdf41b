"""Responses laid end to end behind their prompts, and memory sized by them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from siri.engines.local.compiled.jit import Floats, Integers
from siri.engines.local.compiled.layout import Activations, BackScratch, Pack, Scratch
from siri.engines.local.model import ModelShape


@dataclass(frozen=True)
class Sizes:
    """How much memory a pack needs; see `layout` for the letters."""

    tokens: int
    """N"""
    predicting: int
    """M"""
    longest_group: int
    group_by_prompt: int
    """The largest product of a group's tokens and its prompt's."""
    longest_response: int


def pack_texts(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> tuple[Pack, Sizes]:
    """Lay out B responses (none empty) behind their prompts; equal prompts beside each other are read once."""
    ids: list[int] = []
    positions: list[int] = []
    groups: list[tuple[int, int, int, int]] = []
    laid: list[tuple[int, int, int]] = []
    first_response = [0]
    rows: list[int] = []
    targets: list[int] = []
    predicting = 0
    begin = 0
    while begin < len(prompts):
        prompt, end = prompts[begin], begin + 1
        while end < len(prompts) and prompts[end] == prompt:
            end += 1
        start = len(ids)
        ids += prompt
        positions += range(len(prompt))
        first = predicting - (len(ids) - 1)
        for response in responses[begin:end]:
            rows.append(len(prompt) - 1 + start + first)
            rows += range(len(ids) + first, len(ids) + first + len(response) - 1)
            targets += response
            laid.append((len(groups), len(ids), len(response) - 1))
            ids += response[:-1]
            positions += range(len(prompt), len(prompt) + len(response) - 1)
        groups.append((start, len(prompt), len(ids), predicting))
        first_response.append(len(laid))
        predicting += len(ids) - start - len(prompt) + 1
        begin = end
    lengths = [end - start for start, _, end, _ in groups]
    sizes = Sizes(
        tokens=len(ids),
        predicting=predicting,
        longest_group=max(lengths),
        group_by_prompt=max(length * group[1] for length, group in zip(lengths, groups, strict=True)),
        longest_response=max((count for _, _, count in laid), default=0),
    )
    pack = Pack(
        ids=integers(ids),
        positions=integers(positions),
        groups=integers(groups).reshape(-1, 4),
        responses=integers(laid).reshape(-1, 3),
        first_response=integers(first_response),
        rows=integers(rows),
        targets=integers(targets),
    )
    return pack, sizes


def pack_prompts(prompts: Sequence[Sequence[int]]) -> tuple[Pack, Sizes]:
    """Prompts without responses, each read by itself: what predicts is the last token of each."""
    lengths = np.array([len(prompt) for prompt in prompts], np.int64)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    count = len(prompts)
    pack = Pack(
        ids=integers([token for prompt in prompts for token in prompt]),
        positions=integers([place for prompt in prompts for place in range(len(prompt))]),
        groups=np.stack((starts, lengths, ends, np.arange(count, dtype=np.int64)), axis=1),
        responses=np.empty((0, 3), np.int64),
        first_response=np.zeros(count + 1, np.int64),
        rows=np.empty(0, np.int64),
        targets=np.empty(0, np.int64),
    )
    longest = int(lengths.max())
    return pack, Sizes(int(ends[-1]), count, longest, longest * longest, 0)


def integers(values: object) -> Integers:
    """As an int64 array."""
    return np.array(values, np.int64)


class Workspace:
    """Memory that grows to what is asked for and is used again: fresh pages cost a twentieth of a pass."""

    def __init__(self) -> None:
        self.memory: dict[str, Floats] = {}

    def take(self, name: str, *size: int) -> Floats:
        """An array of exactly this size, its values undefined; valid until the name is asked for again."""
        count = int(np.prod(size, dtype=np.int64))
        if name not in self.memory or self.memory[name].size < count:
            self.memory[name] = np.empty(count, np.float32)
        return self.memory[name][:count].reshape(size)

    def activations(self, shape: ModelShape, sizes: Sizes, kept: int) -> Activations:
        """For a forward pass that keeps all layers (`kept` = shape.layers) for a backward one, or one at a time (1)."""
        n, m, width = sizes.tokens, sizes.predicting, shape.width
        return Activations(
            x=self.take("x", kept, n, width),
            h1=self.take("h1", kept, n, width),
            r1=self.take("r1", kept, n),
            q=self.take("q", kept, shape.heads, n, shape.head_size),
            k=self.take("k", shape.layers, shape.kv_heads, n, shape.head_size),
            v=self.take("v", shape.layers, shape.kv_heads, n, shape.head_size),
            lse=self.take("lse", kept, shape.heads, n),
            attended=self.take("attended", kept, n, shape.query_width),
            xm=self.take("xm", kept, n, width),
            h2=self.take("h2", kept, n, width),
            r2=self.take("r2", kept, n),
            gate_up=self.take("gate_up", kept, n, 2 * shape.feed_forward),
            final_x=self.take("final_x", m, width),
            final_attended=self.take("final_attended", m, shape.query_width),
            hf=self.take("hf", m, width),
            rf=self.take("rf", m),
            logprobs=self.take("logprobs", m, shape.vocabulary),
            entropies=self.take("entropies", m),
        )

    def scratch(self, shape: ModelShape, sizes: Sizes) -> Scratch:
        """What passes of both directions work in."""
        n = sizes.tokens
        return Scratch(
            qkv=self.take("qkv", n, shape.query_width + 2 * shape.key_width),
            width=self.take("width", n, shape.width),
            act=self.take("act", n, shape.feed_forward),
            prompt_scores=self.take("prompt_scores", sizes.group_by_prompt),
            own_scores=self.take("own_scores", sizes.longest_response**2),
            gathered=self.take("gathered", 2, sizes.longest_group, shape.head_size),
            sums=self.take("sums", sizes.longest_group),
            softmax=self.take("softmax", sizes.predicting * shape.vocabulary),
        )

    def back_scratch(self, shape: ModelShape, sizes: Sizes) -> BackScratch:
        """What the backward pass works in beside that."""
        n = sizes.tokens
        return BackScratch(
            dx=self.take("dx", n, shape.width),
            dfinal=self.take("dfinal", sizes.predicting, shape.width),
            dgate_up=self.take("dgate_up", n, 2 * shape.feed_forward),
            dact=self.take("dact", n, shape.feed_forward),
            dattended=self.take("dattended", n, shape.query_width),
            dq=self.take("dq", shape.heads, n, shape.head_size),
            dk=self.take("dk", shape.kv_heads, n, shape.head_size),
            dv=self.take("dv", shape.kv_heads, n, shape.head_size),
            dprompt=self.take("dprompt", sizes.group_by_prompt),
            down=self.take("down", sizes.longest_response**2),
            correction=self.take("correction", n),
        )
