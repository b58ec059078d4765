"""What a scanner gives: HU on a grid, and the label map drawn over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from implantforge.core.errors import InputError
from implantforge.core.space import Grid

Side = Literal["left", "right"]


@dataclass(frozen=True)
class Patient:
    """All of a person that is ever kept: never a name, an ID, a date or a UID."""

    sex: str = "unknown"
    age_band: str = "unknown"
    laterality: str = "unknown"


@dataclass(frozen=True, eq=False)
class Volume:
    """CT numbers. hu is int16 [i,j,k] on the grid; series_uid is a keyless SHA-256 of the original, never the original."""

    grid: Grid
    hu: NDArray[np.int16]
    series_uid: str = ""
    patient: Patient = field(default_factory=Patient)

    def __post_init__(self) -> None:
        if self.hu.shape != self.grid.shape:
            raise InputError(f"volume: {self.hu.shape} samples on a grid of {self.grid.shape}")
        if self.hu.dtype != np.int16:
            raise InputError(f"volume: HU must be int16, got {self.hu.dtype}")

    def crop(self, start: tuple[int, int, int], stop: tuple[int, int, int]) -> Volume:
        """The part with indices start <= (i,j,k) < stop (a view)."""
        window = tuple(slice(a, b) for a, b in zip(start, stop))
        return Volume(self.grid.crop(start, stop), self.hu[window], self.series_uid, self.patient)


@dataclass(frozen=True, eq=False)
class Labels:
    """values uint8 [i,j,k] on the grid, 0 is background; names maps TotalSegmentator class names to values."""

    grid: Grid
    values: NDArray[np.uint8]
    names: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.values.shape != self.grid.shape:
            raise InputError(f"labels: {self.values.shape} samples on a grid of {self.grid.shape}")

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Boolean [i,j,k] of one bone; InputError names the bones there are."""
        if name not in self.names:
            raise InputError(f"labels: no {name} in this scan (found: {', '.join(sorted(self.names)) or 'no bone'})")
        return self.values == self.names[name]
