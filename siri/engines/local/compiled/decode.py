"""The decode loop: rows are started as others finish, so that about as many are written at every step."""

import numba
import numpy as np

from siri.engines.local.compiled.arithmetic import (
    LOWEST,
    ONE,
    ZERO,
    F,
    add,
    add_with_bias,
    dot,
    exp_all,
    largest,
    rms_norm,
    subtract,
    swiglu,
    total,
)
from siri.engines.local.compiled.attention import copy
from siri.engines.local.compiled.jit import LANES, Floats, Integers, entry, free
from siri.engines.local.compiled.layout import DECODING, F2, F4, ROWS, SHAPE, WEIGHTS, Decoding, Rows, Shape, Weights
from siri.engines.local.compiled.packed import log_softmax


@free
def lay_out(given: Floats, begin: int, end: int, out: Floats) -> None:
    """A prompt's keys or values from [layers, heads, tokens, size] to [layers, heads x size, slots]."""
    layers, heads, size = given.shape[0], given.shape[1], given.shape[3]
    for layer in range(layers):
        for h in range(heads):
            for i in range(begin, end):
                for j in range(size):
                    out[layer, h * size + j, i - begin] = given[layer, h, i, j]


@free
def begin_row(prompt: Floats, out: Floats, length: int) -> None:
    """Copy the first `length` slots."""
    layers, features = prompt.shape[0], prompt.shape[1]
    for layer in range(layers):
        for j in range(features):
            copy(prompt[layer, j, :length], out[layer, j])


@free
def score_slots(query: Floats, keys: Floats, scores: Floats) -> None:
    """scores[j] = the sum over i of query[i] keys[i, j]; four i at a time, to read and write the scores less often."""
    size, slots = query.shape[0], scores.shape[0]
    scores[:] = ZERO
    fours = size // 4 * 4
    for i in range(0, fours, 4):
        a, b, c, e = query[i], query[i + 1], query[i + 2], query[i + 3]
        ka, kb, kc, ke = keys[i], keys[i + 1], keys[i + 2], keys[i + 3]
        for j in range(slots):
            scores[j] += a * ka[j] + b * kb[j] + c * kc[j] + e * ke[j]
    for i in range(fours, size):
        a, ka = query[i], keys[i]
        for j in range(slots):
            scores[j] += a * ka[j]


@free
def gather_slots(weights: Floats, values: Floats, size: np.float32, out: Floats) -> None:
    """out[i] = the sum over j of weights[j] values[i, j], times size."""
    for i in range(out.shape[0]):
        out[i] = dot(weights, values[i]) * size


@free
def turn_row(
    qkv: Floats, bias: Floats, cosines: Floats, sines: Floats, size: int, heads: int, kv_heads: int, out: Floats
) -> None:
    """The scaled, rotated queries, rotated keys and values of one token, as `attention.split_heads` makes them."""
    half, shrink, turned = size // 2, F(ONE / np.sqrt(F(size))), heads + kv_heads
    for h in range(turned):
        by, at = shrink if h < heads else ONE, h * size
        for j in range(half):
            x, y = qkv[at + j] + bias[at + j], qkv[at + half + j] + bias[at + half + j]
            out[at + j] = (x * cosines[j] - y * sines[j]) * by
            out[at + half + j] = (y * cosines[j] + x * sines[j]) * by
    for j in range(turned * size, (turned + kv_heads) * size):
        out[j] = qkv[j] + bias[j]


@free
def attend_row(
    w: Weights,
    shape: Shape,
    layer: int,
    place: int,
    qkv: Floats,
    keys: Floats,
    values: Floats,
    d: Decoding,
    out: Floats,
) -> None:
    """Keep the new token's key and value at `place`, and gather what its query sees; keys, values [features, slots]."""
    size, heads, kv_heads, new = shape.head_size, shape.heads, shape.kv_heads, d.turned
    wide, first_key, first_value = (place // LANES + 1) * LANES, heads * size, (heads + kv_heads) * size
    turn_row(qkv, w.qkv_bias[layer], w.cosines[place], w.sines[place], size, heads, kv_heads, new)
    scores = d.scores[:wide]
    for h in range(heads):
        at, kv = h * size, h * kv_heads // heads * size
        score_slots(new[at : at + size], keys[kv : kv + size], scores)
        scores[place] = dot(new[at : at + size], new[first_key + kv : first_key + kv + size])
        for j in range(place + 1, wide):
            scores[j] = LOWEST
        subtract(scores, largest(scores, LOWEST))
        exp_all(scores)
        for j in range(place + 1, wide):
            scores[j] = ZERO
        share = ONE / total(scores)
        own, scores[place] = scores[place] * share, ZERO
        gather_slots(scores, values[kv : kv + size], share, out[at : at + size])
        for j in range(size):
            out[at + j] += own * new[first_value + kv + j]
    # Only now: what was read lies in the cache, and a column is as many lines as there are features.
    for j in range(kv_heads * size):
        keys[j, place] = new[first_key + j]
        values[j, place] = new[first_value + j]


@free
def step(w: Weights, shape: Shape, rows: Rows, group: int, d: Decoding, n: int) -> None:
    """The logits after the last tokens of the first n rows being written."""
    for i in range(n):
        copy(w.embedding[d.fed[i]], d.x[i])
    x, xm, h, out = d.x[:n], d.xm[:n], d.h[:n], d.out[:n]
    for layer in range(w.qkv.shape[0]):
        rms_norm(x, w.attention_norm[layer], h, d.inverse, shape.epsilon)
        np.dot(h, w.qkv[layer].T, d.qkv[:n])
        for i in range(n):
            row, slot = d.row[i], d.slot[i]
            prompt = row // group
            place = rows.starts[prompt + 1] - rows.starts[prompt] + rows.lengths[row] - 1
            attend_row(w, shape, layer, place, d.qkv[i], d.keys[slot, layer], d.values[slot, layer], d, d.attended[i])
        np.dot(d.attended[:n], w.out[layer].T, out)
        add_with_bias(x, out, w.out_bias[layer], xm)
        rms_norm(xm, w.feed_norm[layer], h, d.inverse, shape.epsilon)
        np.dot(h, w.gate_up[layer].T, d.gate_up[:n])
        swiglu(d.gate_up[:n], d.act[:n])
        np.dot(d.act[:n], w.down[layer].T, x)
        add(x, xm)
    rms_norm(x, w.norm, h, d.inverse, shape.epsilon)
    np.dot(h, w.head.T, d.logits[:n])


@free
def draw(powers: Floats, uniform: np.float64) -> int:
    """The first token at which the running sum of powers exceeds the uniform's share of their whole sum."""
    whole, last = 0.0, 0
    for j in range(powers.shape[0]):
        whole += np.float64(powers[j])
        if powers[j] > ZERO:
            last = j
    share, running = uniform * whole, 0.0
    for j in range(powers.shape[0]):
        running += np.float64(powers[j])
        if running > share:
            return j
    return last


@free
def likeliest(logits: Floats) -> int:
    """The first of the largest."""
    best = 0
    for j in range(logits.shape[0]):
        if logits[j] > logits[best]:
            best = j
    return best


@free
def is_end(token: int, ends: Integers) -> bool:
    """Whether a token ends its response."""
    for end in ends:  # noqa: SIM110 – numba has no any()
        if end == token:
            return True
    return False


@free
def write(rows: Rows, temperature: np.float32, d: Decoding, n: int) -> int:
    """A token for each of the n rows; returns how many go on, moved to the front in their order."""
    if temperature > ZERO:
        log_softmax(d.logits[:n], ONE / temperature, d.softmax, d.entropies)
    vocabulary, at_once, kept = d.logits.shape[1], d.row.shape[0], 0
    for i in range(n):
        row, place = d.row[i], rows.lengths[d.row[i]]
        if temperature > ZERO:
            token = draw(d.softmax[i * vocabulary : (i + 1) * vocabulary], rows.uniforms[row, place])
        else:
            token = likeliest(d.logits[i])
        if place < rows.prefix_lengths[row]:
            token = rows.prefixes[row, place]
        rows.tokens[row, place] = token
        if temperature > ZERO:
            rows.logprobs[row, place] = d.logits[i, token]
            rows.entropies[row, place] = d.entropies[i]
        rows.lengths[row] = place + 1
        ended = is_end(token, rows.ends)
        rows.finished[row] = ended
        slot = d.slot[i]
        if ended or place + 1 == rows.budgets[row]:
            d.free[at_once - n + i - kept] = slot
        else:
            d.row[kept], d.slot[kept], d.fed[kept] = row, slot, token
            kept += 1
    return kept


@entry(numba.void(WEIGHTS, SHAPE, ROWS, numba.float32, F4, F4, F2, DECODING))
def decode(
    w: Weights,
    shape: Shape,
    rows: Rows,
    temperature: np.float32,
    keys: Floats,
    values: Floats,
    first_logits: Floats,
    d: Decoding,
) -> None:
    """Write all rows to their ends; keys, values [layers, kv_heads, all prompt tokens, size], first_logits [P, V]."""
    count, at_once, group = rows.budgets.shape[0], d.row.shape[0], rows.budgets.shape[0] // first_logits.shape[0]
    started, writing = 0, 0
    while True:
        begun = writing
        while writing < at_once and started < count:
            prompt = started // group
            if started % group == 0:
                lay_out(keys, rows.starts[prompt], rows.starts[prompt + 1], d.prompt_keys)
                lay_out(values, rows.starts[prompt], rows.starts[prompt + 1], d.prompt_values)
            slot = d.free[at_once - 1 - writing]
            length = rows.starts[prompt + 1] - rows.starts[prompt]
            begin_row(d.prompt_keys, d.keys[slot], length)
            begin_row(d.prompt_values, d.values[slot], length)
            d.row[writing], d.slot[writing] = started, slot
            started += 1
            writing += 1
        if writing == 0:
            return
        if begun > 0:
            step(w, shape, rows, group, d, begun)
        for i in range(begun, writing):
            copy(first_logits[d.row[i] // group], d.logits[i])
        writing = write(rows, temperature, d, writing)
