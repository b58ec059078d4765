"""What is measured on porous structures, beside what a user would pick today. asv names.

Stiffness: `plain` is a plain scipy FFT-CG (rotated scheme, Willot 2015: strains in real space, six load cases,
residual 3e-3 in the energy norm, which leaves the modulus under 0.1 % to fall as ours does, float32, all cores), `kernel`
ours with six load cases, `cyclic` ours where the cell's symmetry leaves two.
Local thickness: `library` is porespy's default where it is installed (it is no dependency), `voxels` ours from the mask,
`distances` ours from signed distances. Errors: root mean square against known diameters, in voxels.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from implantforge.core import Lattice
from implantforge.kernels import homogenise, spheres
from implantforge.pipeline import porosity
from implantforge.stages import lattice, porous
from implantforge.stages.porous import elastic, passages, permeability, stiffness, walls


def gyroid(n: int, cells: float = 1.0) -> NDArray:
    """Signed distance (steps, first order) of a sheet gyroid of density 0.3 on n^3 samples."""
    w = 2 * np.pi * cells / n
    axis = w * (np.arange(n) + 0.5)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    sx, sy, sz, cx, cy, cz = np.sin(x), np.sin(y), np.sin(z), np.cos(x), np.cos(y), np.cos(z)
    f = sx * cy + sy * cz + sz * cx
    slope = (cx * cy - sz * sx) ** 2 + (cy * cz - sx * sy) ** 2 + (cz * cx - sy * sz) ** 2
    return ((np.abs(f) - 0.465) / (w * np.sqrt(np.maximum(slope, 0.2)))).astype(np.float32)


def share(n: int) -> NDArray:
    """Solid share of a sheet gyroid's voxels."""
    return np.clip(0.5 - gyroid(n), 0, 1)


class _Plain:
    """Rotated finite differences; displacements by conjugate gradients with the solid's Green operator; float32."""

    def __init__(self, solid: NDArray, poisson: float) -> None:
        n = len(solid)
        k = [2 * np.pi * fft.fftfreq(n)] * 2 + [2 * np.pi * fft.rfftfreq(n)]
        a, b, c = np.meshgrid(*[np.exp(1j * one) for one in k], indexing="ij", sparse=True)
        self.d = np.stack(np.broadcast_arrays((a - 1) * (b + 1) * (c + 1), (a + 1) * (b - 1) * (c + 1),
                                              (a + 1) * (b + 1) * (c - 1)))  # fmt: skip
        self.d = (self.d / 4).astype(np.complex64)
        self.lam, self.mu = elastic.lame(poisson)
        self.solid = np.maximum(solid, 1e-5).astype(np.float32)
        wide = self.d.astype(complex)
        dd = np.einsum("aijk,bijk->abijk", wide.conj(), wide)
        trace = np.einsum("aaijk->ijk", dd)
        whole = self.lam * dd + self.mu * dd.swapaxes(0, 1) + self.mu * np.eye(3)[:, :, None, None, None] * trace
        flat = np.moveaxis(whole, (0, 1), (-2, -1))
        dead = np.abs(trace) < 1e-9
        flat[dead] = np.eye(3)
        self.green = np.moveaxis(np.linalg.inv(flat), (-2, -1), (0, 1))
        self.green[:, :, dead] = 0
        self.green = self.green.astype(np.complex64)

    def stress(self, u: NDArray, mean: NDArray) -> NDArray:
        """Six stresses, Voigt order."""
        waves = fft.rfftn(u, axes=(1, 2, 3), workers=-1)
        slopes = np.stack([0.5 * (self.d[a] * waves[b] + self.d[b] * waves[a]) for a, b in elastic.VOIGT])
        out = fft.irfftn(slopes, s=u.shape[1:], axes=(1, 2, 3), workers=-1, overwrite_x=True)
        out += np.array([mean[a, b] for a, b in elastic.VOIGT], np.float32)[:, None, None, None]
        trace = np.float32(self.lam) * (out[0] + out[1] + out[2])
        out *= np.float32(2 * self.mu)
        out[:3] += trace
        out *= self.solid
        return out

    def forces(self, stress: NDArray) -> NDArray:
        s = fft.rfftn(stress, axes=(1, 2, 3), workers=-1)
        x, y, z = self.d.conj()
        return np.stack(
            [x * s[0] + y * s[5] + z * s[4], x * s[5] + y * s[1] + z * s[3], x * s[4] + y * s[3] + z * s[2]]
        )

    def tensor(self, tolerance: float = 3e-3) -> NDArray:
        n, out, none = len(self.solid), np.zeros((6, 6)), np.zeros((3, 3))
        back: Callable[[NDArray], NDArray] = lambda w: fft.irfftn(w, s=(n, n, n), axes=(1, 2, 3), workers=-1)  # noqa: E731
        for case, (a, b) in enumerate(elastic.VOIGT):
            mean = np.zeros((3, 3))
            mean[a, b] = mean[b, a] = 1.0 if a == b else 0.5
            u = np.zeros((3, n, n, n), np.float32)
            waves = -self.forces(self.stress(u, mean))
            r, p, first, last = back(waves), np.zeros_like(u), 0.0, 1.0
            while True:
                z = back(np.einsum("abijk,bijk->aijk", self.green, fft.rfftn(r, axes=(1, 2, 3), workers=-1)))
                now = float(np.vdot(r, z))
                first = first or now
                if now <= tolerance**2 * first:
                    break
                p = z + np.float32(now / last if last != 1.0 else 0.0) * p
                q = back(self.forces(self.stress(p, none)))
                step = np.float32(now / float(np.vdot(p, q)))
                u, r, last = u + step * p, r - step * q, now
            out[:, case] = self.stress(u, mean).mean(axis=(1, 2, 3), dtype=np.float64)
        return out


class Stiffness:
    """6x6 of a sheet gyroid of density 0.3, Poisson 0.3. track_modulus: E along the axis by the solid's; ours carried to a
    step of 0."""

    params = ((64, 128), ("plain", "kernel", "cyclic"))
    param_names = ("samples", "method")
    repeat, sample_time, timeout = 5, 40.0, 600

    def setup(self, samples: int, method: str) -> None:
        elastic.solve(share(32), 0.3, 5e-4)
        self.share = share(samples)
        if method == "kernel":
            elastic._cyclic = lambda share: False

    def time_tensor(self, samples: int, method: str) -> None:
        self.tensor(method)

    def peakmem_tensor(self, samples: int, method: str) -> None:
        self.tensor(method)

    def track_modulus(self, samples: int, method: str) -> float:
        return float(1 / np.linalg.inv(self.tensor(method))[0, 0])

    def tensor(self, method: str) -> NDArray:
        if method == "plain":
            return _Plain(self.share, 0.3).tensor()
        return stiffness.effective(self.share, poisson=0.3).tensor


class Thickness:
    """Walls of a sheet gyroid, 256^3, and rms error on balls, slabs and cylinders of 128^3."""

    params = ("library", "voxels", "distances")
    param_names = ("method",)
    repeat, sample_time = 5, 60.0

    def setup(self, method: str) -> None:
        if method == "library" and not find_spec("porespy"):
            raise NotImplementedError("porespy is not installed")
        self.field = gyroid(256, 4.0)
        self.measured(method, self.field[:48, :48, :48])

    def measured(self, method: str, field: NDArray) -> NDArray:
        """Diameters (voxels)."""
        if method == "library":
            import porespy  # type: ignore[import-not-found]

            return 2 * porespy.filters.local_thickness(field < 0)
        field = np.ascontiguousarray(field)
        if method == "distances":
            away = walls.distance(field, 1.0, side=1)
        else:
            away = walls.distance(walls.levels(field < 0), side=1)
        return walls.thickness(away)

    def time_walls(self, method: str) -> None:
        self.measured(method, self.field)

    def time_pores(self, method: str) -> None:
        self.measured(method, -self.field)

    def peakmem_walls(self, method: str) -> None:
        self.measured(method, self.field)

    def track_ball(self, method: str) -> float:
        return self.wrong(method, lambda x, y, z: np.sqrt(x * x + y * y + z * z) - 30.3, 60.6)

    def track_slab(self, method: str) -> float:
        return self.wrong(method, lambda x, y, z: np.abs(x) - 4.85 + 0 * (y + z), 9.7)

    def track_oblique_slab(self, method: str) -> float:
        return self.wrong(method, lambda x, y, z: np.abs(0.48 * x + 0.6 * y + 0.64 * z) - 4.85, 9.7)

    def track_cylinder(self, method: str) -> float:
        return self.wrong(method, lambda x, y, z: np.sqrt(x * x + (0.8 * y + 0.6 * z) ** 2) - 6.7, 13.4)

    def wrong(self, method: str, shape: Callable[..., NDArray], true: float) -> float:
        axis = np.arange(128) - 64 + 0.3
        field = shape(*np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)).astype(np.float32)
        core = (slice(20, -20),) * 3
        read = self.measured(method, field)[core][field[core] < 0]
        return float(np.sqrt(((read - true) ** 2).mean()))


class Steps:
    """One kernel at a time beside its numpy twin (tests/reference.py; scipy where numpy has none)."""

    params = (
        ("green", "dots", "advance", "turn", "forces", "soften", "distance", "paint", "area"),
        ("numpy", "kernel"),
    )
    param_names = ("kernel", "method")
    repeat = 60

    def setup(self, kernel: str, method: str) -> None:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
        self.reference = importlib.import_module("reference")
        random, n = np.random.default_rng(0), {"forces": 12, "paint": 32, "area": 16}.get(kernel, 96)
        self.a, self.b, self.u, self.r = (random.normal(size=(3, n, n, n)).astype(np.float32) for _ in range(4))
        self.inverse = random.normal(size=(6, n, n, n)).astype(np.float32)
        self.waves, self.share = (self.a + 1j * self.b).astype(np.complex64), np.abs(self.inverse[0]).clip(0, 1)
        self.level, self.work = gyroid(n, n / 32), np.empty(n)
        self.balls = np.column_stack([np.sort(random.uniform(0, n, 300)), random.uniform(0, n, (300, 2)),
                                      random.uniform(1, 6, 300)]).astype(np.float32)  # fmt: skip
        self.call = getattr(self, f"{kernel}_{method}")
        self.call()

    def time_step(self, kernel: str, method: str) -> None:
        self.call()

    def green_numpy(self) -> None:
        self.reference.green_forces(self.inverse, self.waves)

    def green_kernel(self) -> None:
        homogenise.green(self.inverse, self.waves)

    def dots_numpy(self) -> None:
        self.reference.plane_dots(self.a, self.b)

    def dots_kernel(self) -> None:
        homogenise.dots(self.a, self.b, self.work)

    def advance_numpy(self) -> None:
        self.reference.advanced(np.float32(1e-3), self.a, self.b, self.u, self.r)

    def advance_kernel(self) -> None:
        homogenise.advance(1e-3, self.a, self.b, self.u, self.r)

    def turn_numpy(self) -> None:
        self.reference.turned(np.float32(1e-3), self.a, self.b)

    def turn_kernel(self) -> None:
        homogenise.turn(1e-3, self.a, self.b)

    def forces_numpy(self) -> None:
        self.reference.elastic_forces(self.u, self.share, np.eye(3), *elastic.lame(0.3))

    def forces_kernel(self) -> None:
        homogenise.stiffness(self.u, self.share, np.eye(3, dtype=np.float32), *elastic.lame(0.3), self.work, self.r)

    def soften_numpy(self) -> None:
        self.reference.softened(self.level < 0)

    def soften_kernel(self) -> None:
        walls.levels(self.level < 0)

    def distance_numpy(self) -> None:
        ndimage.distance_transform_edt(self.level < 0)
        ndimage.distance_transform_edt(self.level >= 0)

    def distance_kernel(self) -> None:
        walls.distance(self.level)

    def paint_numpy(self) -> None:
        self.reference.painted_balls(self.balls, self.level, 0.5)

    def paint_kernel(self) -> None:
        starts = np.searchsorted(self.balls[:, 0], np.arange(len(self.level) + 1))
        edges = np.array([0, len(self.level) // 2, len(self.level)])
        spheres.paint(self.balls, starts, edges, self.level, 1.0, 0.5, np.empty_like(self.level))

    def area_numpy(self) -> None:
        self.reference.surface_area(self.level, passages._TETRAHEDRA)

    def area_kernel(self) -> None:
        passages.area(self.level)


class Flow:
    """Cubic array of balls, share 0.216 (Zick and Homsy 1982): Darcy permeability by samples along the cell."""

    params = (16, 32, 64)
    param_names = ("samples",)

    def setup(self, samples: int) -> None:
        self.radius = (3 * 0.216 / (4 * np.pi)) ** (1 / 3)
        axis = np.arange(samples) + 0.5 - samples / 2
        x, y, z = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
        self.away = np.sqrt(x * x + y * y + z * z) - self.radius * samples

    def time_darcy(self, samples: int) -> None:
        permeability.darcy(self.away, 1.0)

    def track_error_pct(self, samples: int) -> float:
        found = permeability.darcy(self.away, 1.0).mean_m2
        return 100 * (found * 6e6 * np.pi * self.radius * 7.442 - 1)


class Certified:
    """The whole certificate of 512^3 samples of a sheet gyroid, four cells of 1.5 mm, unit cell of 64^3 included."""

    repeat, timeout = 1, 900

    def setup(self) -> None:
        solved = lattice.solve(Lattice("gyroid", "sheet", 1.5, porosity=0.7))
        self.cell, self.step = porosity.cell(solved, 64), 6.0 / 512
        self.work(gyroid(96, 3.0) * np.float32(6.0 / 96), 6.0 / 96)
        self.field = gyroid(512, 4.0) * np.float32(self.step)

    def work(self, field: NDArray, step: float) -> Any:
        return porous.certificate(field, step, cell=self.cell)

    def time_certificate(self) -> None:
        self.work(self.field, self.step)

    def peakmem_certificate(self) -> None:
        self.work(self.field, self.step)
