"""What every kernel benchmark shares: one work done several ways, its time, its error, its memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Work = Callable[[], Any]


class _Kernel:
    """prepare(size) -> ways {method: work} and error(result); the small size compiles, the large one is measured."""

    params: tuple[Any, ...] = ("numpy", "kernel")
    param_names: tuple[str, ...] = ("method",)
    repeat = 20
    sample_time = 5.0
    sizes: tuple[int, int] = (1000, 1_000_000)

    def setup(self, *which: str) -> None:
        self.prepare(self.sizes[0])[which[-1]]()
        self.work = self.prepare(self.sizes[1])[which[-1]]

    def prepare(self, size: int) -> dict[str, Work]:
        raise NotImplementedError("a base")

    def error(self, result: Any) -> float:
        raise NotImplementedError("a base")

    def time_run(self, *which: str) -> None:
        self.work()

    def track_error(self, *which: str) -> float:
        return self.error(self.work())

    def peakmem_run(self, *which: str) -> None:
        self.kept = self.work()  # held to the end, so that the output counts


def filled(kernel: Callable[..., Any], shape: Any, *given: Any, dtype: Any = np.float64) -> NDArray:
    """What a kernel writes into its last argument."""
    out = np.empty(shape, dtype)
    kernel(*given, out)
    return out
