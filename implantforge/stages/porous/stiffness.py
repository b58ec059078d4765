"""Effective stiffness of a repeating cell: the 6x6 tensor, its elastic constants, its error, and the bounds it must keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, Field, GeometryError
from implantforge.stages.porous import elastic

SOLID_GPA = 114.0  # Ti-6Al-4V, annealed
POISSON = 0.34
TOLERANCE = 5e-4


@dataclass(frozen=True, eq=False)
class Stiffness:
    """tensor (6,6) by the modulus of the solid, Voigt order xx yy zz yz xz xy with engineering shears, carried to a step
    of 0; on_grid (6,6) what the grid itself gave; error the share by which moduli may be off; density the solid share."""

    tensor: Array
    on_grid: Array
    error: float
    density: float
    poisson: float
    cases: int
    steps: tuple[int, ...]

    def along(self, directions: Array) -> Array:
        """Young's modulus (n,) along directions (n,3), by the modulus of the solid."""
        d = np.asarray(directions, float)
        d = d / np.linalg.norm(d, axis=1, keepdims=True)
        x, y, z = d.T
        stress = np.stack([x * x, y * y, z * z, y * z, x * z, x * y], axis=1)
        compliance = np.linalg.inv(self.tensor)
        # engineering strain read back along d: the shears enter twice in the stress, once in the strain
        return 1.0 / np.einsum("ni,ij,nj->n", stress, compliance, stress)

    def constants(self) -> dict[str, float]:
        """Young's moduli, shear moduli (by the solid's modulus) and Poisson's ratios along the axes, the largest and
        smallest Young's modulus over all directions, bulk and shear modulus (Hill), anisotropy (Zener 1948; universal:
        Ranganathan and Ostoja-Starzewski 2008, 0 when isotropic)."""
        c, s = self.tensor, np.asarray(np.linalg.inv(self.tensor), float)
        names = "xyz"
        out = {f"E_{n}": 1.0 / s[i, i] for i, n in enumerate(names)}
        out |= {f"G_{n}": 1.0 / s[i, i] for i, n in ((3, "yz"), (4, "xz"), (5, "xy"))}
        out |= {f"nu_{names[i]}{names[j]}": -s[j, i] / s[i, i] for i in range(3) for j in range(3) if i != j}
        every = self.along(sphere(4000))
        voigt, reuss = averages(c), averages(s, compliance=True)
        shear, across = c[3:, 3:].trace() / 3, (c[:3, :3].trace() - (c[0, 1] + c[0, 2] + c[1, 2])) / 3
        out |= {"E_max": max(float(every.max()), *(out[f"E_{n}"] for n in names)), "E_min": float(every.min())}
        out |= {"K": (voigt[0] + reuss[0]) / 2, "G": (voigt[1] + reuss[1]) / 2}
        out |= {"zener": 2 * shear / across, "universal": 5 * voigt[1] / reuss[1] + voigt[0] / reuss[0] - 6}
        return {name: float(value) for name, value in out.items()}

    def within_bounds(self) -> dict[str, bool]:
        """Whether the tensor lies below Voigt's mean in every state of strain, and bulk and shear modulus (Hill) below
        Hashin and Shtrikman's (1963) upper bounds for a solid with empty pores."""
        room = self.density * elastic.isotropic(self.poisson) - self.on_grid
        k, g = hashin_shtrikman(self.density, self.poisson)
        found = self.constants()
        slack = 1 + 1e-6
        return {
            "voigt": bool(np.linalg.eigvalsh(room).min() >= -1e-6),
            "hashin_shtrikman_bulk": averages(self.tensor)[0] <= k * slack,
            "hashin_shtrikman_shear": found["G"] <= g * slack,
        }


def effective(share: NDArray[np.float32], *, poisson: float = POISSON, tolerance: float = TOLERANCE) -> Stiffness:
    """Stiffness of a repeating cell given by the solid share (0..1) of its voxels (i,j,k), cubes of one size.

    Grids that can be halved are solved at two steps and carried to a step of 0: shares make the error fall with the
    step squared. GeometryError when the share is not in 0..1, the cell has an odd number of samples, or does not bear.
    """
    share = np.ascontiguousarray(share, np.float32)
    if share.ndim != 3 or share.min() < 0 or share.max() > 1:
        raise GeometryError(f"stiffness: the solid share must be (i,j,k) in 0..1, got {share.shape}")
    if not -1 < poisson < 0.5:
        raise GeometryError(f"stiffness: Poisson's ratio must lie in -1..0.5, got {poisson:g}")
    fine, coarse = elastic.solve(share, poisson, tolerance)
    tensor, error = fine.tensor, fine.solver_error
    floor = 1e-6
    if np.linalg.eigvalsh(tensor).min() <= floor:
        raise GeometryError("stiffness: the cell does not bear load in every direction; is its solid in one piece?")
    if coarse is not None and not np.allclose(fine.tensor, coarse.tensor, rtol=1e-9):
        carried = fine.tensor + (fine.tensor - coarse.tensor) / 3
        if np.linalg.eigvalsh(carried).min() > floor:
            tensor = carried
        error += float(np.abs(np.diag(np.linalg.inv(tensor)) / np.diag(np.linalg.inv(fine.tensor)) - 1).max())
    density = float(share.mean(dtype=np.float64))
    return Stiffness(tensor, fine.tensor, error, density, poisson, fine.cases, fine.steps)


def shares(field: Field, low_mm: Array, side_mm: float, n: int, refine: int = 2) -> NDArray[np.float32]:
    """Solid share (n,n,n) of the voxels of a cube from signed distances taken refine times along a voxel."""
    return shares_of(lambda points: field(points), low_mm, side_mm, n, refine)


def shares_of(distance: Callable[[Array], NDArray], low_mm: Array, side_mm: float, n: int, refine: int) -> NDArray:
    """As `shares`, of any function from points (n,3) mm to signed distances mm."""
    step = side_mm / (n * refine)
    axis = (np.arange(n * refine) + 0.5) * step
    out = np.empty((n, n, n), np.float32)
    for i in range(n):
        x, y, z = np.meshgrid(axis[i * refine : (i + 1) * refine], axis, axis, indexing="ij")
        points = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1) + np.asarray(low_mm, float)
        part = np.clip(0.5 - distance(points) / step, 0.0, 1.0)
        out[i] = part.reshape(refine, n, refine, n, refine).mean(axis=(0, 2, 4))
    return out


def averages(matrix: Array, compliance: bool = False) -> tuple[float, float]:
    """Bulk and shear modulus of Voigt's mean of a stiffness, or of Reuss's of a compliance."""
    direct = matrix[:3, :3].trace()
    across = matrix[0, 1] + matrix[0, 2] + matrix[1, 2]
    shear = matrix[3:, 3:].trace()
    if compliance:
        return 1 / (direct + 2 * across), 15 / (4 * (direct - across) + 3 * shear)
    return (direct + 2 * across) / 9, (direct - across + 3 * shear) / 15


def hashin_shtrikman(density: float, poisson: float) -> tuple[float, float]:
    """Upper bounds of bulk and shear modulus of an isotropic body with empty pores, solid modulus 1."""
    k, g = 1 / (3 * (1 - 2 * poisson)), 1 / (2 * (1 + poisson))
    empty = 1 - density
    bulk = k + empty / (-1 / k + 3 * density / (3 * k + 4 * g))
    return bulk, g + empty / (-1 / g + 6 * density * (k + 2 * g) / (5 * g * (3 * k + 4 * g)))


def sphere(count: int) -> Array:
    """Directions (count,3) spread evenly over a sphere."""
    n = np.arange(count) + 0.5
    z, turn = 1 - 2 * n / count, np.pi * (1 + 5**0.5) * n
    flat = np.sqrt(1 - z * z)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), z], axis=1)
