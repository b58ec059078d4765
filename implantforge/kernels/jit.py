"""The one door to numba. Kernels take arrays and scalars, write into their last argument, and read no module globals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

# Reassociation and contraction are safe here; nnan/ninf would let the compiler drop the NaN and inf tests we rely on.
_FAST = {"contract", "arcp", "nsz"}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on first call, remembered on disk, releasing the GIL."""
    return numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)(function)


def parallel_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """As kernel, with numba.prange allowed on the outermost loop; every iteration must write its own output."""
    return numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST, parallel=True)(function)


def helper(function: Callable[..., Any]) -> Callable[..., Any]:
    """A scalar function for kernels of the same file."""
    return numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=_FAST)(function)


prange = numba.prange
