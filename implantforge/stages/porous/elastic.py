"""Effective stiffness of a periodic cell: trilinear finite elements, conjugate gradients in the energy, and the stiffness
of a solid grid as preconditioner, applied by FFT (Leute et al. 2022; Ladecky et al. 2023)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from implantforge.core import Array, GeometryError
from implantforge.kernels import homogenise

Samples = NDArray[np.float32]
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
SMALLEST = 16  # samples along the coarsest grid
MOST_STEPS = 80


class Solved(NamedTuple):
    """tensor (6,6) by solid modulus 1, Voigt order xx yy zz yz xz xy with engineering shears; solver_error: how much
    the largest entry may still fall, relative; steps of conjugate gradients per load case; cases solved."""

    tensor: Array
    solver_error: float
    steps: tuple[int, ...]
    cases: int


def lame(poisson: float) -> tuple[float, float]:
    """Lame's constants at modulus 1."""
    return poisson / ((1 + poisson) * (1 - 2 * poisson)), 0.5 / (1 + poisson)


def isotropic(poisson: float) -> Array:
    """(6,6) of a solid of modulus 1."""
    lam, mu = lame(poisson)
    out = np.diag([2 * mu] * 3 + [mu] * 3)
    out[:3, :3] += lam
    return out


def solve(share: Samples, poisson: float, tolerance: float) -> tuple[Solved, Solved | None]:
    """Stiffness on a grid of solid shares (i,j,k) in 0..1 that repeats, and on the grid of twice the step (None where
    that is too coarse). Grids are halved while they stay even; each hands its displacements to the next finer one."""
    shares = [np.ascontiguousarray(share, np.float32)]
    while all(n % 4 == 0 and n // 2 >= SMALLEST for n in shares[-1].shape):
        ni, nj, nk = (n // 2 for n in shares[-1].shape)
        shares.append(shares[-1].reshape(ni, 2, nj, 2, nk, 2).mean(axis=(1, 3, 5), dtype=np.float32))
    if any(n % 2 for n in share.shape):
        raise GeometryError(f"stiffness: the cell needs an even number of samples along each axis, got {share.shape}")
    start: list[Samples] = []
    found: list[Solved] = []
    for one in reversed(shares):
        grid = _Grid(one, poisson)
        cases = (0, 3) if _cyclic(one) else range(6)
        solved = [grid.relax(case, start[n] if start else None, tolerance) for n, case in enumerate(cases)]
        found.append(grid.gather(tuple(cases), solved))
        start = [_finer(case.u) for case in solved] if one is not shares[0] else []
    return found[-1], found[-2] if len(found) > 1 else None


def _cyclic(share: Samples) -> bool:
    """Whether x to y to z to x changes nothing: then two load cases give all six."""
    same = len(set(share.shape)) == 1
    return same and bool(np.abs(share - share.transpose(1, 2, 0)).max() <= 1e-4)


def _finer(u: Samples) -> Samples:
    """Displacements (in grid steps) on a grid of half the step."""
    out = 2 * u
    for axis in (1, 2, 3):
        between = 0.5 * (out + np.roll(out, -1, axis))
        shape = [2 * n if a == axis else n for a, n in enumerate(out.shape)]
        out = np.stack([out, between], axis + 1).reshape(shape)
    return out


class _Case(NamedTuple):
    """Displacements u, forces b of the mean strain alone, forces r left (3,i,j,k); energy still to be won, relative."""

    u: Samples
    b: Samples
    r: Samples
    left: float
    steps: int


class _Grid:
    """One grid of solid shares."""

    def __init__(self, share: Samples, poisson: float) -> None:
        self.share, self.poisson = share, poisson
        self.lam, self.mu = lame(poisson)
        self.work = np.empty(share.shape[0])
        self.inverse = _inverse(share.shape, self.lam, self.mu)

    def forces(self, u: Samples, strain: Array, out: Samples) -> float:
        """Forces of u under a mean strain; returns twice the energy."""
        homogenise.stiffness(u, self.share, strain.astype(np.float32), self.lam, self.mu, self.work, out)
        return float(self.work.sum())

    def precondition(self, r: Samples) -> Samples:
        """What a grid of solid cubes would move by under forces r."""
        waves = fft.rfftn(r, axes=(1, 2, 3), workers=-1)
        homogenise.green(self.inverse, waves)
        return fft.irfftn(waves, s=r.shape[1:], axes=(1, 2, 3), workers=-1, overwrite_x=True)

    def dot(self, a: Samples, b: Samples) -> float:
        """Sum of a b, the same for any number of threads."""
        homogenise.dots(a, b, self.work)
        return float(self.work.sum())

    def relax(self, case: int, start: Samples | None, tolerance: float) -> _Case:
        """Displacements under one unit mean strain.

        The energy falls by a known amount at every step; when what the last falls promise to follow is below
        tolerance, it ends (after Strakos and Tichy 2002).
        """
        strain, nothing = np.zeros((3, 3)), np.zeros((3, 3))
        strain[VOIGT[case]] = 1.0
        shape = (3, *self.share.shape)
        u, q = np.zeros(shape, np.float32), np.empty(shape, np.float32)
        b, r = np.empty_like(u), np.empty_like(u)
        energy = self.forces(u, strain, b)
        if start is not None:
            u[:] = start
            energy = self.forces(u, strain, r)
        else:
            r[:] = b
        np.negative(b, out=b)
        np.negative(r, out=r)
        p, last, falls = np.zeros_like(u), 1.0, [np.inf]
        for step in range(MOST_STEPS):
            z = self.precondition(r)
            now = self.dot(r, z)
            homogenise.turn(now / last if step else 0.0, z, p)
            curvature = self.forces(p, nothing, q)
            if not (curvature > 0 and now > 1e-12 * self.share.size):
                break
            homogenise.advance(now / curvature, p, q, u, r)
            falls.append(now / curvature * now)
            energy, last = energy - falls[-1], now
            if _promised(falls) < tolerance * energy:
                break
        left = _promised(falls) / energy if np.isfinite(falls[-1]) and energy > 0 else 0.0
        return _Case(u, b, r, left, len(falls) - 1)

    def gather(self, cases: tuple[int, ...], solved: list[_Case]) -> Solved:
        """The tensor from the energies of pairs of load cases: its error is of second order in that of the fields."""
        size = float(self.share.size)
        mean = float(self.share.mean(dtype=np.float64)) * isotropic(self.poisson)
        out = np.zeros((6, 6))
        for j in range(6):
            other = _turned(solved[cases.index(j)] if j in cases else solved[j // 3], 0 if j in cases else j % 3)
            for i, one in zip(cases, solved):
                out[i, j] = mean[i, j] - (self.dot(one.b, other.u) + self.dot(one.u, other.r)) / size
        if len(cases) == 2:
            for turn in (1, 2):
                place = [(n + turn) % 3 for n in range(3)] + [3 + (n + turn) % 3 for n in range(3)]
                for i in (0, 3):
                    for j in range(6):
                        out[place[i], place[j]] = out[i, j]
        left = max(case.left for case in solved)
        return Solved(0.5 * (out + out.T), left, tuple(case.steps for case in solved), len(cases))


def _turned(case: _Case, turn: int) -> _Case:
    """A load case carried along x to y to z to x, `turn` times."""
    if not turn:
        return case
    axes = [(n - turn) % 3 for n in range(3)]
    u, r = (np.ascontiguousarray(f[axes].transpose(0, *(1 + a for a in axes))) for f in (case.u, case.r))
    return case._replace(u=u, r=r)


def _promised(falls: list[float]) -> float:
    """Energy that later steps will still win if they go on falling as the last three did."""
    if len(falls) < 5:
        return np.inf
    # after a warm start the first falls are steep, and the slow ones still to come would be missed
    rate = float(np.clip((falls[-1] / falls[-4]) ** (1 / 3), 0.8, 0.97)) if falls[-4] > 0 else 0.0
    return falls[-1] * rate / (1 - rate)


def _inverse(shape: tuple[int, ...], lam: float, mu: float) -> Samples:
    """(6,i,j,k/2+1): inverse of the stiffness of a solid grid by wave vector, 0 for the mean; xx yy zz yz xz xy.

    The trilinear element is a product of mass, slope and stiffness along each axis, so its symbols are too.
    """
    angle = [2 * np.pi * fft.fftfreq(n) for n in shape[:2]] + [2 * np.pi * fft.rfftfreq(shape[2])]
    grids = np.meshgrid(*angle, indexing="ij", sparse=True)
    mass = [(2 + np.cos(a)) / 3 for a in grids]
    stiff = [2 - 2 * np.cos(a) for a in grids]
    slope = [np.sin(a) for a in grids]
    k = [stiff[a] * mass[(a + 1) % 3] * mass[(a + 2) % 3] for a in range(3)]
    xx, yy, zz = ((lam + mu) * k[a] + mu * (k[0] + k[1] + k[2]) for a in range(3))
    yz, xz, xy = ((lam + mu) * slope[a] * slope[b] * mass[3 - a - b] for a, b in VOIGT[3:])
    minors = (
        yy * zz - yz**2,
        xx * zz - xz**2,
        xx * yy - xy**2,
        xz * xy - xx * yz,
        xy * yz - yy * xz,
        xz * yz - zz * xy,
    )
    whole = xx * minors[0] + xy * minors[5] + xz * minors[4]
    whole[0, 0, 0] = np.inf
    return np.stack([(m / whole).astype(np.float32) for m in minors])
