"""What passes between Python and the kernels, and its types: every array's shape stands here, none is fixed."""

from typing import NamedTuple

import numba
import numpy as np

from siri.engines.local.compiled.jit import Floats, Integers

F1, F2, F3, F4 = (numba.types.Array(numba.float32, dimensions, "C") for dimensions in (1, 2, 3, 4))
I1 = numba.types.Array(numba.int64, 1, "C")
I2 = numba.types.Array(numba.int64, 2, "C")
D2 = numba.types.Array(numba.float64, 2, "C")
B1 = numba.types.Array(numba.boolean, 1, "C")


class Shape(NamedTuple):
    """Sizes that the arrays do not tell."""

    heads: int
    kv_heads: int
    head_size: int
    epsilon: np.float32


class Weights(NamedTuple):
    """A decoder's weights, its layers' stacked: [layers, …]. Gradients have the same form, up to `down`."""

    embedding: Floats
    """[vocabulary, width]"""
    head: Floats
    """[vocabulary, width]; the embedding itself where it is tied."""
    norm: Floats
    """[width]"""
    attention_norm: Floats
    """[layers, width]"""
    qkv: Floats
    """[layers, query_width + 2 key_width, width]"""
    qkv_bias: Floats
    """[layers, query_width + 2 key_width]; zeros where the model has none, as `out_bias` [layers, width]."""
    out: Floats
    """[layers, width, query_width]"""
    out_bias: Floats
    feed_norm: Floats
    """[layers, width]"""
    gate_up: Floats
    """[layers, 2 feed_forward, width]"""
    down: Floats
    """[layers, width, feed_forward]"""
    cosines: Floats
    """[context, head_size / 2]"""
    sines: Floats
    """[context, head_size / 2]"""


class Pack(NamedTuple):
    """Texts laid end to end, without padding: N tokens of groups, each a prompt and then its responses.

    A response is here without its last token, which nothing follows. M positions predict: the last of each prompt and
    all of the responses, so the last rows of every group. J tokens are predicted.
    """

    ids: Integers
    """[N]"""
    positions: Integers
    """[N] place in its own text."""
    groups: Integers
    """[G, 4] first token, prompt's length, end, first of its predicting positions among the M."""
    responses: Integers
    """[R, 3] group, first token, tokens here; in the order of the groups."""
    first_response: Integers
    """[G + 1] the responses of group g are first_response[g] … first_response[g + 1]."""
    rows: Integers
    """[J] which of the M positions predicts each token of the responses."""
    targets: Integers
    """[J] the token."""


class Activations(NamedTuple):
    """What a forward pass leaves for the backward one: by layer, or of one layer at a time (S = layers, or 1)."""

    x: Floats
    """[S + 1 (or 1), N, width] input of each layer, then nothing of the last one's output."""
    h1: Floats
    """[S, N, width] after the first norm."""
    r1: Floats
    """[S, N]"""
    q: Floats
    """[S, heads, N, head_size] rotated and scaled."""
    k: Floats
    """[layers, kv_heads, N, head_size] rotated."""
    v: Floats
    """[layers, kv_heads, N, head_size]"""
    lse: Floats
    """[S, heads, N] log of the sum of the exponentials of a query's scores."""
    attended: Floats
    """[S, N, query_width]"""
    xm: Floats
    """[S, N, width] after attention; of the last layer, as all that follows, only the M predicting positions."""
    h2: Floats
    """[S, N, width]"""
    r2: Floats
    """[S, N]"""
    gate_up: Floats
    """[S, N, 2 feed_forward]"""
    final_x: Floats
    """[M, width] the predicting positions' input of the last layer, then its output."""
    final_attended: Floats
    """[M, query_width]"""
    hf: Floats
    """[M, width] after the last norm."""
    rf: Floats
    """[M]"""
    logprobs: Floats
    """[M, vocabulary]"""
    entropies: Floats
    """[M]"""


class Scratch(NamedTuple):
    """Memory that a forward or backward pass works in."""

    qkv: Floats
    """[N, query_width + 2 key_width]"""
    width: Floats
    """[N, width]"""
    act: Floats
    """[N, feed_forward]"""
    prompt_scores: Floats
    """[longest group x its prompt] of one head."""
    own_scores: Floats
    """[longest response squared]"""
    gathered: Floats
    """[2, longest group, head_size]"""
    sums: Floats
    """[longest group] of a query's exponentials."""
    softmax: Floats
    """[M x vocabulary]"""


class BackScratch(NamedTuple):
    """Memory of a backward pass beside `Scratch`."""

    dx: Floats
    """[N, width]"""
    dfinal: Floats
    """[M, width]"""
    dgate_up: Floats
    """[N, 2 feed_forward]"""
    dact: Floats
    """[N, feed_forward]"""
    dattended: Floats
    """[N, query_width]"""
    dq: Floats
    """[heads, N, head_size]"""
    dk: Floats
    """[kv_heads, N, head_size]"""
    dv: Floats
    """[kv_heads, N, head_size]"""
    dprompt: Floats
    """[longest group x its prompt]"""
    down: Floats
    """[longest response squared]"""
    correction: Floats
    """[N]"""


class Rows(NamedTuple):
    """Rows to be written, B = P prompts x group, and what they become."""

    starts: Integers
    """[P + 1] the keys of prompt p are starts[p] … starts[p + 1] of those given."""
    budgets: Integers
    """[B]"""
    prefixes: Integers
    """[B, longest prefix] tokens that a row must begin with."""
    prefix_lengths: Integers
    """[B]"""
    uniforms: "np.typing.NDArray[np.float64]"
    """[B, largest budget] in (0, 1)."""
    ends: Integers
    """[E] tokens that end a response."""
    tokens: Integers
    """[B, largest budget]"""
    logprobs: Floats
    """[B, largest budget]"""
    entropies: Floats
    """[B, largest budget]"""
    lengths: Integers
    """[B] 0 at first."""
    finished: "np.typing.NDArray[np.bool_]"
    """[B] false at first."""


class Decoding(NamedTuple):
    """Memory of a decode loop that writes A rows side by side; `slots` is a multiple of LANES that holds every text.

    Index i of row, slot and fed, and of all that is computed in a step, is the i-th of the rows being written.
    """

    row: Integers
    """[A] which of the B rows."""
    slot: Integers
    """[A] where its keys and values are."""
    fed: Integers
    """[A] its last token."""
    free: Integers
    """[A] slots that nobody uses, from A - 1 downwards at first."""
    keys: Floats
    """[A, layers, kv_heads x head_size, slots]; zeros at first: what is not written yet is multiplied by 0."""
    values: Floats
    """[A, layers, kv_heads x head_size, slots]"""
    prompt_keys: Floats
    """[layers, kv_heads x head_size, slots] of the prompt whose rows are being started."""
    prompt_values: Floats
    """[layers, kv_heads x head_size, slots]"""
    x: Floats
    """[A, width], as xm, h and out."""
    xm: Floats
    h: Floats
    out: Floats
    qkv: Floats
    """[A, query_width + 2 key_width]"""
    attended: Floats
    """[A, query_width]"""
    gate_up: Floats
    """[A, 2 feed_forward]"""
    act: Floats
    """[A, feed_forward]"""
    inverse: Floats
    """[A]"""
    logits: Floats
    """[A, vocabulary]"""
    softmax: Floats
    """[A x vocabulary]"""
    entropies: Floats
    """[A]"""
    scores: Floats
    """[slots]"""
    turned: Floats
    """[query_width + 2 key_width] a row's queries, new keys and new values."""


SHAPE = numba.types.NamedTuple([numba.int64, numba.int64, numba.int64, numba.float32], Shape)
WEIGHTS = numba.types.NamedTuple([F2, F2, F1, F2, F3, F2, F3, F2, F2, F3, F3, F2, F2], Weights)
PACK = numba.types.NamedTuple([I1, I1, I2, I2, I1, I1, I1], Pack)
ACTIVATIONS = numba.types.NamedTuple(
    [F3, F3, F2, F4, F4, F4, F3, F3, F3, F3, F2, F3, F2, F2, F2, F1, F2, F1], Activations
)
SCRATCH = numba.types.NamedTuple([F2, F2, F2, F1, F1, F3, F1, F1], Scratch)
BACK_SCRATCH = numba.types.NamedTuple([F2, F2, F2, F2, F2, F3, F3, F3, F1, F1, F1], BackScratch)
ROWS = numba.types.NamedTuple([I1, I1, I2, I1, D2, I1, I2, F2, F2, I1, B1], Rows)
DECODING = numba.types.NamedTuple(
    [I1, I1, I1, I1, F4, F4, F3, F3, F2, F2, F2, F2, F2, F2, F2, F2, F1, F2, F1, F1, F1, F1], Decoding
)
