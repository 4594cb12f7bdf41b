"""Compiled sampling and update of the laptop's `Decoder`: float32, one CPU thread, numba over BLAS.

Why not torch alone: at this size a decode step is a few hundred operators on tiny tensors, and most of its time goes to
attention of one query per row. Why numba and not C: users need no compiler, code is made for the CPU at hand, and the
products stay with BLAS. torch remains the reference: tests hold every number here to `score` and autograd.
"""

VERSION = 1
"""Raised by hand when equal input gives other bits."""
