"""Rows and matrices in float32: exponentials by polynomial (they vectorise), RMSNorm, SwiGLU, and their gradients."""

import numpy as np

from siri.engines.local.compiled.jit import Floats, exact, free, inlined, maximum

F = np.float32
ZERO, HALF, ONE = F(0), F(0.5), F(1)
LOWEST = F(-1e30)
"""Below every score; finite, so that differences of two are."""

LOG2_E = F(1.44269504088896341)
LN2_HIGH, LN2_LOW = F(0.693359375), F(-2.12194440e-4)
P0, P1, P2 = F(1.9875691500e-4), F(1.3981999507e-3), F(8.3334519073e-3)
P3, P4, P5 = F(4.1665795894e-2), F(1.6666665459e-1), F(5.0000001201e-1)
LEAST, MOST = F(-87.0), F(88.0)
BIAS, MANTISSA = np.int32(127), np.int32(23)


@inlined
def exp(x: np.float32) -> np.float32:
    """e^x within 2 ulp (Cephes' expf); e^-87 below -87, e^88 above 88, NaN for NaN. Only under `exact`."""
    x = LEAST if x < LEAST else x
    x = MOST if x > MOST else x
    n = np.floor(x * LOG2_E + HALF)
    r = x - n * LN2_HIGH
    r = r - n * LN2_LOW
    y = ((((P0 * r + P1) * r + P2) * r + P3) * r + P4) * r + P5
    y = y * (r * r) + (r + ONE)
    power: np.float32 = np.int32((np.int32(n) + BIAS) << MANTISSA).view(np.float32)
    power_of_e: np.float32 = y * power
    return power_of_e


@exact
def exp_all(x: Floats) -> None:
    """x = e^x, in place."""
    for j in range(x.shape[0]):
        x[j] = exp(x[j])


@exact
def subtract(x: Floats, a: np.float32) -> None:
    """x -= a."""
    for j in range(x.shape[0]):
        x[j] -= a


@free
def scale(x: Floats, a: np.float32) -> None:
    """x *= a."""
    for j in range(x.shape[0]):
        x[j] *= a


@maximum
def largest(x: Floats, top: np.float32) -> np.float32:
    """The larger of `top` and all of x; what is not a number shows when it is subtracted from."""
    for j in range(x.shape[0]):
        top = x[j] if x[j] > top else top
    return top


@free
def total(x: Floats) -> np.float32:
    """The sum."""
    s = ZERO
    for j in range(x.shape[0]):
        s += x[j]
    return s


@free
def dot(x: Floats, y: Floats) -> np.float32:
    """The inner product."""
    s = ZERO
    for j in range(x.shape[0]):
        s += x[j] * y[j]
    return s


@free
def add(x: Floats, y: Floats) -> None:
    """x += y, matrices."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] += y[i, j]


@free
def add_with_bias(x: Floats, y: Floats, bias: Floats, out: Floats) -> None:
    """out = x + y + bias, matrices and a row."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = x[i, j] + y[i, j] + bias[j]


@free
def add_columns(x: Floats, out: Floats) -> None:
    """out += the sum of x's rows."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[j] += x[i, j]


@free
def rms_norm(x: Floats, weight: Floats, out: Floats, inverse: Floats, epsilon: np.float32) -> None:
    """out = x / rms(x) * weight by rows; inverse[i] = 1 / rms of row i."""
    rows, width = x.shape
    for i in range(rows):
        s = ZERO
        for j in range(width):
            s += x[i, j] * x[i, j]
        q = ONE / np.sqrt(s / F(width) + epsilon)
        inverse[i] = q
        for j in range(width):
            out[i, j] = x[i, j] * q * weight[j]


@free
def rms_norm_back(x: Floats, weight: Floats, inverse: Floats, dy: Floats, dx: Floats, dweight: Floats) -> None:
    """dx += the gradient through `rms_norm`; dweight += its weight's."""
    rows, width = x.shape
    for i in range(rows):
        q, s = inverse[i], ZERO
        for j in range(width):
            s += dy[i, j] * weight[j] * x[i, j]
        s = s * q * q / F(width)
        for j in range(width):
            dweight[j] += dy[i, j] * x[i, j] * q
            dx[i, j] += q * (dy[i, j] * weight[j] - x[i, j] * s)


@exact
def swiglu_row(gate: Floats, up: Floats, out: Floats) -> None:
    """out = silu(gate) * up."""
    for j in range(out.shape[0]):
        out[j] = gate[j] / (ONE + exp(-gate[j])) * up[j]


@exact
def swiglu(gate_up: Floats, out: Floats) -> None:
    """out [rows, n] of gate and up side by side [rows, 2n]."""
    rows, n = out.shape
    for i in range(rows):
        swiglu_row(gate_up[i, :n], gate_up[i, n:], out[i])


@exact
def swiglu_row_back(gate: Floats, up: Floats, da: Floats, act: Floats, dgate: Floats, dup: Floats) -> None:
    """act again, and the gradients of gate and up, from that of act."""
    for j in range(act.shape[0]):
        s = ONE / (ONE + exp(-gate[j]))
        silu = gate[j] * s
        act[j] = silu * up[j]
        dup[j] = da[j] * silu
        dgate[j] = da[j] * up[j] * (s + silu * (ONE - s))


@exact
def swiglu_back(gate_up: Floats, da: Floats, act: Floats, dgate_up: Floats) -> None:
    """`swiglu_row_back` by rows."""
    rows, n = act.shape
    for i in range(rows):
        swiglu_row_back(gate_up[i, :n], gate_up[i, n:], da[i], act[i], dgate_up[i, :n], dgate_up[i, n:])
