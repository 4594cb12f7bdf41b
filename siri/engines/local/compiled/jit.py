"""How the kernels are compiled: the kinds of floating-point freedom, and whether code is kept for other processes."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt

Function = TypeVar("Function", bound=Callable[..., Any])
Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

FREE = {"contract", "reassoc", "nsz", "arcp"}
"""Sums may be taken in vector order. NaN is kept: a policy that has diverged must be seen to have."""


cached = False
"""Whether entry points that are being imported take their code from numba's cache: see `cache`, which sets it."""
LANES = 32
"""Slots of keys and values are worked on in multiples of this: a shorter rest would be computed one by one."""


def exact(function: Function) -> Function:
    """Compile with operations in the order written (fused where they can be): for what cancels, like `exp`."""
    compiled: Function = numba.njit(error_model="numpy", fastmath={"contract"})(function)
    return compiled


def free(function: Function) -> Function:
    """Compile with sums in any order that is fast; the order is a function of the sizes alone."""
    compiled: Function = numba.njit(error_model="numpy", fastmath=FREE)(function)
    return compiled


def maximum(function: Function) -> Function:
    """As `free`, for a largest value: it is taken in vectors only where NaN may be passed over."""
    compiled: Function = numba.njit(error_model="numpy", fastmath=FREE | {"nnan"})(function)
    return compiled


def inlined(function: Function) -> Function:
    """Compile into each caller, under its rules."""
    compiled: Function = numba.njit(error_model="numpy", inline="always")(function)
    return compiled


def entry(signature: Any) -> Callable[[Function], Function]:
    """Compile now, for one signature, or take the code from numba's cache: what Python calls."""

    def compile_now(function: Function) -> Function:
        # The division check of Python's error model is what keeps loops from being vectorised.
        compiled: Function = numba.njit(signature, error_model="numpy", cache=cached)(function)
        return compiled

    return compile_now
