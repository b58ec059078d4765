"""Darcy permeability of a repeating cell from Stokes flow on a staggered grid (Harlow and Welch 1965).

The flow in a cell without walls is known by FFT; the forces that hold the faces in the solid still are found by conjugate
gradients, the Laplacian between held faces as preconditioner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from implantforge.core import Array, GeometryError

Samples = NDArray[np.float32]
NEAR_STEPS = 0.9  # faces this near to a wall feel it
MOST_STEPS = 300
TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Permeability:
    """tensor (3,3) m2, error relative (steps of the grid and of the solver), porosity of the cell, steps per direction."""

    tensor: Array
    error: float
    porosity: float
    steps: tuple[int, ...]

    @property
    def mean_m2(self) -> float:
        """A third of the trace."""
        return float(self.tensor.trace() / 3)


def darcy(distance: NDArray, side_mm: float, *, tolerance: float = TOLERANCE) -> Permeability:
    """Permeability of a repeating cell from signed distances (steps, negative in the solid) at the centres of its voxels
    (i,j,k), side_mm the length of the first axis. Solved at two steps where the cell can be halved: the difference gives
    the error. GeometryError when nothing can flow."""
    distance = np.asarray(distance, np.float32)
    step_m = 1e-3 * side_mm / distance.shape[0]
    fine, steps = _resistance(distance, tolerance)
    tensor, error = np.linalg.inv(fine), tolerance
    if all(n % 2 == 0 and n >= 32 for n in distance.shape):
        ni, nj, nk = (n // 2 for n in distance.shape)
        half = 0.5 * distance.reshape(ni, 2, nj, 2, nk, 2).mean(axis=(1, 3, 5))
        coarse = 4 * np.linalg.inv(_resistance(half, tolerance)[0])
        error += float(abs(coarse.trace() / tensor.trace() - 1))
    return Permeability(tensor * step_m**2, error, float((distance > 0).mean()), steps)


def _resistance(distance: Samples, tolerance: float) -> tuple[Array, tuple[int, ...]]:
    """(3,3) pressure slope (viscosity 1, steps) per mean velocity, and the solver's steps."""
    away = np.stack([0.5 * (distance + np.roll(distance, 1, a)) for a in range(3)])
    if not (away < NEAR_STEPS).any():
        raise GeometryError("permeability: the cell has no wall to hold the flow")
    cyclic = len(set(distance.shape)) == 1 and np.abs(distance - distance.transpose(1, 2, 0)).max() < 1e-3
    flow = _Flow(away)
    out, steps = np.zeros((3, 3)), []
    for axis in range(1 if cyclic else 3):
        column, count = flow.forces(axis, tolerance)
        out[:, axis] = column
        steps.append(count)
    if cyclic:
        out[:, 1], out[:, 2] = np.roll(out[:, 0], 1), np.roll(out[:, 0], 2)
    out = 0.5 * (out + out.T)
    if not np.isfinite(out).all() or np.linalg.eigvalsh(out).min() <= 0:
        raise GeometryError("permeability: nothing flows through the cell")
    return out, tuple(steps)


class _Flow:
    """Velocities on the faces of a grid. held (3,i,j,k) is 1 on faces that feel a wall. In the solid they stand still; s
    steps in front of it they move by give times the force on them, give s / (1 - s): the flow is then linear to the wall,
    not to the next face behind it.
    """

    def __init__(self, away: Samples) -> None:
        self.held = (away < NEAR_STEPS).astype(np.float32)
        s = np.clip(away, 0.0, NEAR_STEPS)
        self.give = self.held * s / (1 - s)
        self.weight = self.held / np.sqrt(1 + 6 * self.give)
        shape = away.shape[1:]
        angles = [2 * np.pi * fft.fftfreq(n) for n in shape[:2]] + [2 * np.pi * fft.rfftfreq(shape[2])]
        grids = np.meshgrid(*angles, indexing="ij", sparse=True)
        self.slope = [(np.exp(1j * a) - 1).astype(np.complex64) for a in grids]
        laplace = sum(4 * np.sin(a / 2) ** 2 for a in grids)
        laplace[0, 0, 0] = np.inf
        self.inverse = (1 / laplace).astype(np.float32)

    def velocity(self, force: Samples) -> Samples:
        """Flow (mean 0) that forces on the faces drive, without divergence."""
        waves = fft.rfftn(force, axes=(1, 2, 3), workers=-1)
        spread = sum(s * w for s, w in zip(self.slope, waves)) * self.inverse
        for axis in range(3):
            waves[axis] -= np.conj(self.slope[axis]) * spread
            waves[axis] *= self.inverse
        return fft.irfftn(waves, s=force.shape[1:], axes=(1, 2, 3), workers=-1, overwrite_x=True)

    def smooth(self, velocity: Samples) -> Samples:
        """Minus the Laplacian of what is given on held faces, on held faces; less of it where they give."""
        velocity = velocity * self.weight
        out = 6 * velocity
        for axis in (1, 2, 3):
            out -= np.roll(velocity, 1, axis)
            out -= np.roll(velocity, -1, axis)
        return out * self.weight

    def forces(self, axis: int, tolerance: float) -> tuple[Array, int]:
        """Pressure slope (3,) that drives a unit mean velocity along an axis, and the steps it took."""
        r = np.zeros_like(self.held)
        r[axis] = self.held[axis]
        force, p, last = np.zeros_like(r), np.zeros_like(r), 1.0
        falls, total = [0.0], 0.0
        for step in range(MOST_STEPS):
            z = self.smooth(r)
            now = _dot(r, z)
            if now <= 0:
                break
            p = z + np.float32(now / last if step else 0.0) * p
            q = self.velocity(p) * self.held + self.give * p
            curvature = _dot(p, q)
            if curvature <= 0:
                break
            size = now / curvature
            force += np.float32(size) * p
            r -= np.float32(size) * q
            falls.append(size * now)
            total, last = total + falls[-1], now
            recent = falls[-5:]
            if step > 8 and 3 * sum(recent) < tolerance * total:
                break
        return force.reshape(3, -1).mean(axis=1, dtype=np.float64), len(falls) - 1


def _dot(a: Samples, b: Samples) -> float:
    """Sum of a b, in double precision by row."""
    return float(np.einsum("ijkl,ijkl->ijk", a, b).sum(dtype=np.float64))
