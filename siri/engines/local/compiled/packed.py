"""Log-probabilities and entropies of packed responses, and their gradients, with products by BLAS."""

import numba
import numpy as np

from siri.engines.local.compiled.arithmetic import (
    LOWEST,
    ONE,
    ZERO,
    add,
    add_columns,
    add_with_bias,
    dot,
    exp_all,
    largest,
    rms_norm,
    rms_norm_back,
    scale,
    subtract,
    swiglu,
    swiglu_back,
    total,
)
from siri.engines.local.compiled.attention import attend, attend_back, copy, join_heads, split_heads
from siri.engines.local.compiled.jit import Floats, entry, free
from siri.engines.local.compiled.layout import (
    ACTIVATIONS,
    BACK_SCRATCH,
    F1,
    PACK,
    SCRATCH,
    SHAPE,
    WEIGHTS,
    Activations,
    BackScratch,
    Pack,
    Scratch,
    Shape,
    Weights,
)


@free
def take_predicting(pack: Pack, x: Floats, out: Floats) -> None:
    """out [M, …] = the rows of x [N, …] that predict."""
    for g in range(pack.groups.shape[0]):
        first, to = pack.groups[g, 0] + pack.groups[g, 1] - 1, pack.groups[g, 3]
        for i in range(pack.groups[g, 2] - first):
            copy(x[first + i], out[to + i])


@free
def finish(
    w: Weights,
    shape: Shape,
    layer: int,
    at: int,
    x: Floats,
    attended: Floats,
    out: Floats,
    saved: Activations,
    scratch: Scratch,
) -> None:
    """out = the layer's output from its input x and what its heads gathered; out may be x."""
    rows = x.shape[0]
    xm, h2, gate_up, act = saved.xm[at, :rows], saved.h2[at, :rows], saved.gate_up[at, :rows], scratch.act[:rows]
    np.dot(attended, w.out[layer].T, scratch.width[:rows])
    add_with_bias(x, scratch.width[:rows], w.out_bias[layer], xm)
    rms_norm(xm, w.feed_norm[layer], h2, saved.r2[at, :rows], shape.epsilon)
    np.dot(h2, w.gate_up[layer].T, gate_up)
    swiglu(gate_up, act)
    np.dot(act, w.down[layer].T, out)
    add(out, xm)


@free
def read(w: Weights, shape: Shape, pack: Pack, saved: Activations, scratch: Scratch) -> None:
    """All layers: keys and values of every position, hidden states `final_x` of the predicting ones."""
    layers, keeping = w.qkv.shape[0], saved.x.shape[0] > 1
    for i in range(pack.ids.shape[0]):
        copy(w.embedding[pack.ids[i]], saved.x[0, i])
    for layer in range(layers):
        at, last = layer if keeping else 0, layer == layers - 1
        x = saved.x[at]
        rms_norm(x, w.attention_norm[layer], saved.h1[at], saved.r1[at], shape.epsilon)
        np.dot(saved.h1[at], w.qkv[layer].T, scratch.qkv)
        q, k, v = saved.q[at], saved.k[layer], saved.v[layer]
        split_heads(scratch.qkv, w.qkv_bias[layer], w.cosines, w.sines, pack.positions, q, k, v)
        attend(pack, q, k, v, saved.lse[at], saved.attended[at], scratch, last)
        if last:
            take_predicting(pack, x, saved.final_x)
            take_predicting(pack, saved.attended[at], saved.final_attended)
            finish(w, shape, layer, at, saved.final_x, saved.final_attended, saved.final_x, saved, scratch)
        else:
            finish(w, shape, layer, at, x, saved.attended[at], saved.x[at + 1 if keeping else 0], saved, scratch)


@free
def put_predicting(pack: Pack, x: Floats, out: Floats) -> None:
    """The rows of out [N, …] that predict = x [M, …]; the others keep what they have."""
    for g in range(pack.groups.shape[0]):
        first, at = pack.groups[g, 0] + pack.groups[g, 1] - 1, pack.groups[g, 3]
        for i in range(pack.groups[g, 2] - first):
            copy(x[at + i], out[first + i])


@free
def log_softmax(logits: Floats, inverse_temperature: np.float32, softmax: Floats, entropies: Floats) -> None:
    """Logits [rows, V] become log-probabilities, in place; entropies [rows]."""
    rows, vocabulary = logits.shape
    powers = softmax[: rows * vocabulary].reshape((rows, vocabulary))
    for i in range(rows):
        scale(logits[i], inverse_temperature)
        subtract(logits[i], largest(logits[i], LOWEST))
        copy(logits[i], powers[i])
    exp_all(softmax[: rows * vocabulary])
    for i in range(rows):
        z = total(powers[i])
        log_z = np.log(z)
        entropies[i] = log_z - dot(powers[i], logits[i]) / z
        subtract(logits[i], log_z)


@free
def spread_last(pack: Pack, back: BackScratch) -> None:
    """From the predicting positions of the last layer to all positions, those that nobody looks at with gradient 0."""
    back.dx[:] = ZERO
    put_predicting(pack, back.dfinal, back.dx)
    # From the end, since target and source are the same memory and no row moves towards the front.
    for g in range(pack.groups.shape[0] - 1, -1, -1):
        first, at = pack.groups[g, 0] + pack.groups[g, 1] - 1, pack.groups[g, 3]
        for i in range(pack.groups[g, 2] - first - 1, -1, -1):
            copy(back.dattended[at + i], back.dattended[first + i])


@free
def through_log_softmax(
    pack: Pack, temperature: np.float32, saved: Activations, scratch: Scratch, dlogprobs: Floats, dentropies: Floats
) -> None:
    """The gradient of the logits in place of the log-probabilities.

    d log p_t = 1_t - p, d H = -p (log p + H).
    """
    rows, vocabulary = saved.logprobs.shape
    by_logprob, by_entropy = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
    inverse = ONE / temperature
    for j in range(pack.rows.shape[0]):
        by_logprob[pack.rows[j]] += dlogprobs[j] * inverse
        by_entropy[pack.rows[j]] += dentropies[j] * inverse
    powers = scratch.softmax[: rows * vocabulary].reshape((rows, vocabulary))
    for i in range(rows):
        copy(saved.logprobs[i], powers[i])
    exp_all(scratch.softmax[: rows * vocabulary])
    for i in range(rows):
        a, b, entropy = by_logprob[i], by_entropy[i], saved.entropies[i]
        for j in range(vocabulary):
            saved.logprobs[i, j] = -powers[i, j] * (a + b * (saved.logprobs[i, j] + entropy))
    for j in range(pack.rows.shape[0]):
        saved.logprobs[pack.rows[j], pack.targets[j]] += dlogprobs[j] * inverse


@free
def finish_back(
    w: Weights,
    layer: int,
    attended: Floats,
    dx: Floats,
    dattended: Floats,
    saved: Activations,
    scratch: Scratch,
    back: BackScratch,
    gradients: Weights,
) -> None:
    """Through `finish`: dx, the gradient of the layer's output, becomes what reaches its input past attention."""
    rows = dx.shape[0]
    act, dact, dgate_up, dh = scratch.act[:rows], back.dact[:rows], back.dgate_up[:rows], scratch.width[:rows]
    np.dot(dx, w.down[layer], dact)
    swiglu_back(saved.gate_up[layer, :rows], dact, act, dgate_up)
    np.dot(dx.T, act, gradients.down[layer])
    np.dot(dgate_up.T, saved.h2[layer, :rows], gradients.gate_up[layer])
    np.dot(dgate_up, w.gate_up[layer], dh)
    rms_norm_back(
        saved.xm[layer, :rows], w.feed_norm[layer], saved.r2[layer, :rows], dh, dx, gradients.feed_norm[layer]
    )
    np.dot(dx.T, attended, gradients.out[layer])
    add_columns(dx, gradients.out_bias[layer])
    np.dot(dx, w.out[layer], dattended)


@free
def project_back(
    w: Weights,
    pack: Pack,
    layer: int,
    last: bool,
    saved: Activations,
    scratch: Scratch,
    back: BackScratch,
    gradients: Weights,
) -> None:
    """Through attention and its projections: adds to back.dx, the gradient of the layer's input."""
    attend_back(
        pack,
        saved.q[layer],
        saved.k[layer],
        saved.v[layer],
        saved.lse[layer],
        saved.attended[layer],
        scratch,
        back,
        last,
    )
    join_heads(back.dq, back.dk, back.dv, w.cosines, w.sines, pack.positions, scratch.qkv)
    np.dot(scratch.qkv.T, saved.h1[layer], gradients.qkv[layer])
    add_columns(scratch.qkv, gradients.qkv_bias[layer])
    np.dot(scratch.qkv, w.qkv[layer], scratch.width)
    rms_norm_back(
        saved.x[layer],
        w.attention_norm[layer],
        saved.r1[layer],
        scratch.width,
        back.dx,
        gradients.attention_norm[layer],
    )


@entry(numba.void(WEIGHTS, SHAPE, PACK, numba.float32, ACTIVATIONS, SCRATCH, F1, F1))
def forward(
    w: Weights,
    shape: Shape,
    pack: Pack,
    temperature: np.float32,
    saved: Activations,
    scratch: Scratch,
    logprobs: Floats,
    entropies: Floats,
) -> None:
    """logprobs [J] of the targets and entropies [J] of what they came from, under logits / temperature."""
    read(w, shape, pack, saved, scratch)
    rms_norm(saved.final_x, w.norm, saved.hf, saved.rf, shape.epsilon)
    np.dot(saved.hf, w.head.T, saved.logprobs)
    log_softmax(saved.logprobs, ONE / temperature, scratch.softmax, saved.entropies)
    for j in range(pack.rows.shape[0]):
        logprobs[j] = saved.logprobs[pack.rows[j], pack.targets[j]]
        entropies[j] = saved.entropies[pack.rows[j]]


@entry(numba.void(WEIGHTS, SHAPE, PACK, numba.float32, ACTIVATIONS, SCRATCH, BACK_SCRATCH, F1, F1, WEIGHTS))
def backward(
    w: Weights,
    shape: Shape,
    pack: Pack,
    temperature: np.float32,
    saved: Activations,
    scratch: Scratch,
    back: BackScratch,
    dlogprobs: Floats,
    dentropies: Floats,
    gradients: Weights,
) -> None:
    """Gradients, zeros before, of what `forward` gave; it must have kept all layers. Uses `saved.logprobs` up.

    Where the head is tied, `gradients.head` is `gradients.embedding`.
    """
    through_log_softmax(pack, temperature, saved, scratch, dlogprobs, dentropies)
    np.dot(saved.logprobs.T, saved.hf, gradients.head)
    dh = scratch.width[: saved.hf.shape[0]]
    np.dot(saved.logprobs, w.head, dh)
    back.dfinal[:] = ZERO
    rms_norm_back(saved.final_x, w.norm, saved.rf, dh, back.dfinal, gradients.norm)
    layers = w.qkv.shape[0]
    for layer in range(layers - 1, -1, -1):
        last = layer == layers - 1
        if last:
            rows = back.dfinal.shape[0]
            finish_back(
                w, layer, saved.final_attended, back.dfinal, back.dattended[:rows], saved, scratch, back, gradients
            )
            spread_last(pack, back)
        else:
            finish_back(w, layer, saved.attended[layer], back.dx, back.dattended, saved, scratch, back, gradients)
        project_back(w, pack, layer, last, saved, scratch, back, gradients)
    for i in range(pack.ids.shape[0]):
        row, dx = gradients.embedding[pack.ids[i]], back.dx[i]
        for j in range(row.shape[0]):
            row[j] += dx[j]
