"""Causal attention over packed groups: a prompt's keys are shared by its responses, each of which sees its own past.

The probabilities are not kept for the backward pass but computed again from the scores and their log-sum: memory grows
with the longest response, not with layers and heads.
"""

import numpy as np

from siri.engines.local.compiled.arithmetic import (
    LEAST,
    LOWEST,
    ONE,
    ZERO,
    F,
    add,
    dot,
    exp_all,
    largest,
    subtract,
    total,
)
from siri.engines.local.compiled.jit import Floats, Integers, free
from siri.engines.local.compiled.layout import BackScratch, Pack, Scratch


@free
def copy(x: Floats, out: Floats) -> None:
    """out = x."""
    for j in range(x.shape[0]):
        out[j] = x[j]


@free
def split_heads(
    qkv: Floats, bias: Floats, cosines: Floats, sines: Floats, positions: Integers, q: Floats, k: Floats, v: Floats
) -> None:
    """From [N, all heads] to [heads, N, size]: bias, rotation, and the scores' 1 / sqrt(size) in the queries.

    Rotated in halves, as Hugging Face's Llama does it. Indices and no slices: heads are too short for those.
    """
    heads, tokens, size = q.shape
    kv_heads, half = k.shape[0], q.shape[2] // 2
    shrink = F(ONE / np.sqrt(F(size)))
    for i in range(tokens):
        p = positions[i]
        for h in range(heads):
            at = h * size
            for j in range(half):
                x, y = qkv[i, at + j] + bias[at + j], qkv[i, at + half + j] + bias[at + half + j]
                q[h, i, j] = (x * cosines[p, j] - y * sines[p, j]) * shrink
                q[h, i, half + j] = (y * cosines[p, j] + x * sines[p, j]) * shrink
        for h in range(kv_heads):
            at = (heads + h) * size
            for j in range(half):
                x, y = qkv[i, at + j] + bias[at + j], qkv[i, at + half + j] + bias[at + half + j]
                k[h, i, j] = x * cosines[p, j] - y * sines[p, j]
                k[h, i, half + j] = y * cosines[p, j] + x * sines[p, j]
            at += kv_heads * size
            for j in range(size):
                v[h, i, j] = qkv[i, at + j] + bias[at + j]


@free
def join_heads(
    dq: Floats, dk: Floats, dv: Floats, cosines: Floats, sines: Floats, positions: Integers, dqkv: Floats
) -> None:
    """The gradient through `split_heads`."""
    heads, tokens, size = dq.shape
    kv_heads, half = dk.shape[0], dq.shape[2] // 2
    shrink = F(ONE / np.sqrt(F(size)))
    for i in range(tokens):
        p = positions[i]
        for h in range(heads):
            at = h * size
            for j in range(half):
                x, y = dq[h, i, j], dq[h, i, half + j]
                dqkv[i, at + j] = (x * cosines[p, j] + y * sines[p, j]) * shrink
                dqkv[i, at + half + j] = (y * cosines[p, j] - x * sines[p, j]) * shrink
        for h in range(kv_heads):
            at = (heads + h) * size
            for j in range(half):
                x, y = dk[h, i, j], dk[h, i, half + j]
                dqkv[i, at + j] = x * cosines[p, j] + y * sines[p, j]
                dqkv[i, at + half + j] = y * cosines[p, j] - x * sines[p, j]
            at += kv_heads * size
            for j in range(size):
                dqkv[i, at + j] = dv[h, i, j]


@free
def lower(x: Floats, seen: int, a: np.float32) -> None:
    """x - a for the first `seen`, as low as `exp` goes for the others, which the row does not see."""
    for j in range(seen):
        x[j] -= a
    for j in range(seen, x.shape[0]):
        x[j] = LEAST


@free
def clear(x: Floats, seen: int) -> None:
    """0 for all but the first `seen`."""
    for j in range(seen, x.shape[0]):
        x[j] = ZERO


@free
def attend_prompt(shared: Floats, lse: Floats, sums: Floats) -> None:
    """Scores of a prompt's last rows become probabilities times `sums`: the last row sees all of it."""
    rows, prompt = shared.shape
    for i in range(rows):
        seen = prompt - rows + i + 1
        top = largest(shared[i, :seen], LOWEST)
        lse[i] = top
        lower(shared[i], seen, top)
    exp_all(shared.reshape(rows * prompt))
    for i in range(rows):
        clear(shared[i], prompt - rows + i + 1)
        sums[i] = total(shared[i])
        lse[i] += np.log(sums[i])


@free
def attend_response(shared: Floats, own: Floats, lse: Floats, sums: Floats) -> None:
    """Scores of a response's rows become probabilities times `sums`: each sees its prompt, and itself up to here."""
    n, prompt = shared.shape
    for i in range(n):
        top = largest(own[i, : i + 1], largest(shared[i], LOWEST))
        lse[i] = top
        subtract(shared[i], top)
        lower(own[i], i + 1, top)
    exp_all(shared.reshape(n * prompt))
    exp_all(own.reshape(n * n))
    for i in range(n):
        clear(own[i], i + 1)
        sums[i] = total(shared[i]) + total(own[i])
        lse[i] += np.log(sums[i])


@free
def attend_group(
    pack: Pack,
    g: int,
    q: Floats,
    k: Floats,
    v: Floats,
    lse: Floats,
    out: Floats,
    h: int,
    scratch: Scratch,
    predicting: bool,
) -> None:
    """One head in one group."""
    begin, prompt, end = pack.groups[g, 0], pack.groups[g, 1], pack.groups[g, 2]
    first = begin + prompt - 1 if predicting else begin
    count, inside, size = end - first, begin + prompt - first, q.shape[1]
    shared = scratch.prompt_scores[: count * prompt].reshape((count, prompt))
    np.dot(q[first:end], k[begin : begin + prompt].T, shared)
    own, common = scratch.gathered[0, :count], scratch.gathered[1, :count]
    sums = scratch.sums[:count]
    attend_prompt(shared[:inside], lse[first : first + inside], sums[:inside])
    own[:inside] = ZERO
    for r in range(pack.first_response[g], pack.first_response[g + 1]):
        start, n = pack.responses[r, 1], pack.responses[r, 2]
        if n > 0:
            a, b = start - first, start - first + n
            scores = scratch.own_scores[: n * n].reshape((n, n))
            np.dot(q[start : start + n], k[start : start + n].T, scores)
            attend_response(shared[a:b], scores, lse[start : start + n], sums[a:b])
            np.dot(scores, v[start : start + n], own[a:b])
    np.dot(shared, v[begin : begin + prompt], common)
    at = h * size
    for i in range(count):
        z = ONE / sums[i]
        for j in range(size):
            out[first + i, at + j] = (own[i, j] + common[i, j]) * z


@free
def attend(
    pack: Pack, q: Floats, k: Floats, v: Floats, lse: Floats, out: Floats, scratch: Scratch, predicting: bool
) -> None:
    """out [N, heads x size] of all positions, or of the predicting ones alone; lse [heads, N]."""
    heads, kv_heads = q.shape[0], k.shape[0]
    for g in range(pack.groups.shape[0]):
        for h in range(heads):
            kv = h * kv_heads // heads
            attend_group(pack, g, q[h], k[kv], v[kv], lse[h], out, h, scratch, predicting)


@free
def again(scores: Floats, lse: Floats, inside: int) -> None:
    """Scores [rows, columns] become probabilities; of the first `inside` rows the last sees all, others one less."""
    rows, columns = scores.shape
    for i in range(rows):
        lower(scores[i], min(columns - inside + i + 1, columns), lse[i])
    exp_all(scores.reshape(rows * columns))
    for i in range(inside):
        clear(scores[i], columns - inside + i + 1)


@free
def through_softmax(probabilities: Floats, gradient: Floats, correction: Floats) -> None:
    """gradient = probabilities (gradient - correction), by rows."""
    rows, columns = gradient.shape
    for i in range(rows):
        c = correction[i]
        for j in range(columns):
            gradient[i, j] = probabilities[i, j] * (gradient[i, j] - c)


@free
def attend_group_back(
    pack: Pack,
    g: int,
    q: Floats,
    k: Floats,
    v: Floats,
    lse: Floats,
    h: int,
    kv: int,
    scratch: Scratch,
    back: BackScratch,
    predicting: bool,
) -> None:
    """One head in one group: dS = P (dP - correction), and what follows from it."""
    begin, prompt, end = pack.groups[g, 0], pack.groups[g, 1], pack.groups[g, 2]
    first = begin + prompt - 1 if predicting else begin
    count, inside, size = end - first, begin + prompt - first, q.shape[1]
    middle, at = begin + prompt, h * size
    dq, dk, dv = back.dq[h], back.dk[kv], back.dv[kv]
    dout, temporary = scratch.gathered[0, :count], scratch.gathered[1]
    for i in range(count):
        copy(back.dattended[first + i, at : at + size], dout[i])
    shared = scratch.prompt_scores[: count * prompt].reshape((count, prompt))
    np.dot(q[first:end], k[begin:middle].T, shared)
    again(shared, lse[first:end], inside)
    dshared = back.dprompt[: count * prompt].reshape((count, prompt))
    np.dot(dout, v[begin:middle].T, dshared)
    through_softmax(shared, dshared, back.correction[first:end])
    dq[begin:first] = ZERO
    np.dot(dshared, k[begin:middle], dq[first:end])
    np.dot(dshared.T, q[first:end], temporary[:prompt])
    add(dk[begin:middle], temporary[:prompt])
    np.dot(shared.T, dout, temporary[:prompt])
    add(dv[begin:middle], temporary[:prompt])
    for r in range(pack.first_response[g], pack.first_response[g + 1]):
        start, n = pack.responses[r, 1], pack.responses[r, 2]
        if n > 0:
            stop, a, b = start + n, start - first, start - first + n
            own = scratch.own_scores[: n * n].reshape((n, n))
            np.dot(q[start:stop], k[start:stop].T, own)
            again(own, lse[start:stop], n)
            down = back.down[: n * n].reshape((n, n))
            np.dot(dout[a:b], v[start:stop].T, down)
            through_softmax(own, down, back.correction[start:stop])
            np.dot(down, k[start:stop], temporary[:n])
            add(dq[start:stop], temporary[:n])
            np.dot(down.T, q[start:stop], temporary[:n])
            add(dk[start:stop], temporary[:n])
            np.dot(own.T, dout[a:b], temporary[:n])
            add(dv[start:stop], temporary[:n])


@free
def attend_back(
    pack: Pack,
    q: Floats,
    k: Floats,
    v: Floats,
    lse: Floats,
    attended: Floats,
    scratch: Scratch,
    back: BackScratch,
    predicting: bool,
) -> None:
    """From back.dattended to back.dq, dk and dv."""
    heads, kv_heads, size = q.shape[0], k.shape[0], q.shape[2]
    back.dk[:] = ZERO
    back.dv[:] = ZERO
    for g in range(pack.groups.shape[0]):
        for h in range(heads):
            kv, at = h * kv_heads // heads, h * size
            begin, prompt, end = pack.groups[g, 0], pack.groups[g, 1], pack.groups[g, 2]
            for i in range(begin + prompt - 1 if predicting else begin, end):
                back.correction[i] = dot(attended[i, at : at + size], back.dattended[i, at : at + size])
            attend_group_back(pack, g, q[h], k[kv], v[kv], lse[h], h, kv, scratch, back, predicting)
