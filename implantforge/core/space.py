"""Where things are: rigid poses and sampling grids, patient LPS in mm."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from implantforge.core.errors import GeometryError

Array = NDArray[np.float64]


def frozen(values: object, shape: tuple[int, ...], dtype: type = np.float64) -> NDArray:
    """A read-only copy of `values` with the given shape (-1 matches any length)."""
    array: NDArray = np.array(values, dtype=dtype)
    if array.ndim != len(shape) or any(want not in (-1, got) for want, got in zip(shape, array.shape)):
        raise GeometryError(f"expected an array of shape {shape}, got {array.shape}")
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class Pose:
    """Local to patient: x_patient = rotation @ x_local + origin_mm. Rotation is proper (det +1): nothing is mirrored."""

    rotation: Array = field(default_factory=lambda: np.eye(3))
    origin_mm: Array = field(default_factory=lambda: np.zeros(3))

    def __post_init__(self) -> None:
        object.__setattr__(self, "rotation", frozen(self.rotation, (3, 3)))
        object.__setattr__(self, "origin_mm", frozen(self.origin_mm, (3,)))
        if not np.allclose(self.rotation @ self.rotation.T, np.eye(3), atol=1e-6):
            raise GeometryError("pose: rotation is not orthonormal")
        if np.linalg.det(self.rotation) < 0:
            raise GeometryError("pose: rotation has determinant -1, it would mirror the patient")

    def apply(self, local_mm: Array) -> Array:
        """Points (n,3) or (3,) from local to patient coordinates, mm."""
        return np.asarray(local_mm) @ self.rotation.T + self.origin_mm

    def inverse_apply(self, patient_mm: Array) -> Array:
        """Points (n,3) or (3,) from patient to local coordinates, mm."""
        return (np.asarray(patient_mm) - self.origin_mm) @ self.rotation

    def compose(self, inner: Pose) -> Pose:
        """The pose that applies `inner` first, then this one."""
        return Pose(self.rotation @ inner.rotation, self.apply(inner.origin_mm))

    @property
    def matrix(self) -> Array:
        """Homogeneous (4,4), column vectors."""
        out = np.eye(4)
        out[:3, :3] = self.rotation
        out[:3, 3] = self.origin_mm
        return out


@dataclass(frozen=True, eq=False)
class Grid:
    """Where samples sit, without samples. Index (i,j,k) lies at pose.apply((i,j,k) * spacing_mm)."""

    pose: Pose
    spacing_mm: Array
    shape: tuple[int, int, int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "spacing_mm", frozen(self.spacing_mm, (3,)))
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if not (self.spacing_mm > 0).all():
            raise GeometryError(f"grid: spacing must be positive, got {self.spacing_mm.tolist()} mm")

    def to_patient(self, index: Array) -> Array:
        """Fractional indices (n,3) to LPS mm."""
        return self.pose.apply(np.asarray(index, dtype=np.float64) * self.spacing_mm)

    def to_index(self, patient_mm: Array) -> Array:
        """LPS mm (n,3) to fractional indices."""
        return self.pose.inverse_apply(patient_mm) / self.spacing_mm

    def crop(self, start: tuple[int, int, int], stop: tuple[int, int, int]) -> Grid:
        """The sub-grid of indices start <= (i,j,k) < stop."""
        lo = np.asarray(start)
        origin = self.to_patient(lo.astype(float))
        return Grid(Pose(self.pose.rotation, origin), self.spacing_mm, tuple(np.asarray(stop) - lo))

    @property
    def affine(self) -> Array:
        """Homogeneous (4,4) index to LPS mm."""
        out = self.pose.matrix.copy()
        out[:3, :3] = out[:3, :3] * self.spacing_mm
        return out
