"""Lattice numbers and distances: time, memory, and the wall and porosity that come out. asv names."""

import sys
import tempfile
from pathlib import Path

import numpy as np
from bench_meshing import graded_coat
from run import memory_mb

from implantforge.core import Lattice, Pose
from implantforge.geom import measure, meshing, shapes
from implantforge.kernels.struts import line_distance
from implantforge.pipeline import proving
from implantforge.stages import export, lattice
from implantforge.stages.lattice import solving, struts


class Distance:
    """True gyroid distance at a million points."""

    def setup(self) -> None:
        bounds = np.array([[0.0] * 3, [10.0] * 3])
        self.field = lattice.field(lattice.solve(Lattice("gyroid", "sheet", 1.5, wall_mm=0.3)), bounds)
        self.points = np.random.default_rng(0).uniform(0, 10, (1_000_000, 3))
        self.field(self.points[:1000])

    def time_evaluate(self) -> None:
        self.field(self.points)

    def peakmem_evaluate(self) -> None:
        self.field(self.points)


class Struts:
    """Distance to the struts of an octet cell on 96^3 nodes: the kernel, and numpy on every 8th node."""

    params = ("kernel", "numpy / 8")
    param_names = ("by",)

    def setup(self, by: str) -> None:
        self.lines = struts.around(struts.lines("octet", 0), 1.0, 0.46)
        self.out = np.empty((96, 96, 96))
        line_distance(self.lines, 1 / 96, 0.46, self.out)

    def time_distance(self, by: str) -> None:
        if by == "kernel":
            line_distance(self.lines, 1 / 96, 0.46, self.out)
            return
        p = np.indices((12, 96, 96)).reshape(3, -1).T * [8.0, 1.0, 1.0] / 96
        best = np.full(len(p), np.inf)
        for row in self.lines:
            a, d = row[:3], row[3:] - row[:3]
            t = np.clip((p - a) @ d / (d @ d), 0, 1)
            best = np.minimum(best, ((p - a - t[:, None] * d) ** 2).sum(axis=1))
        np.sqrt(best)


class Solve:
    """From a wall or a porosity to level, pore and throat, nothing remembered."""

    params = ("sheet wall 0.3", "network wall 0.45", "network porosity 0.7")
    param_names = ("asked",)
    repeat = 1

    def setup(self, asked: str) -> None:
        form, what, value = asked.split()
        given = {"wall_mm": float(value)} if what == "wall" else {"porosity": float(value)}
        self.asked = Lattice("gyroid", form, 1.5, **given)  # type: ignore[arg-type]
        lattice.solve(Lattice("primitive", form, 1.5, porosity=0.6))  # type: ignore[arg-type]

    def time_solve(self, asked: str) -> None:
        lattice.solve(self.asked)


class Wall:
    """Wall measured on voxels of 0.03 mm over the 0.25 mm asked of a gyroid sheet, %."""

    unit = "%"

    def track_wall_error(self) -> float:
        solved = lattice.solve(Lattice("gyroid", "sheet", 1.5, wall_mm=0.25))
        region = shapes.box((0, 0, 0), (5, 5, 5))
        got = measure.certificate(lattice.field(solved, region.bounds) & region, region, 0.03)
        return 100 * (got["lattice_wall_um"] / 250 - 1)


class Porosity:
    """Porosity of four whole cells less the one asked, in the middle of what the kind can be; points of a hundred."""

    params = (tuple(" ".join(key) for key in lattice.DENSITY),)
    param_names = ("family",)
    unit = "points of 100"

    def track_porosity_error(self, family: str) -> float:
        kind, form = family.split()
        asked = 1 - sum(lattice.DENSITY[kind, form]) / 2
        solved = lattice.solve(Lattice(kind, form, 1.5, porosity=asked))  # type: ignore[arg-type]
        region = shapes.box((0, 0, 0), (6, 6, 6))
        return 100 * (measure.porosity(lattice.field(solved, region.bounds), region, 0.0471) - asked)


class Asked:
    """What a ruler finer than its samples reads over what was solved, at both ends and the middle of each family: walls and
    pores by median local thickness, necks of networks by the largest sphere that passes, %."""

    params = (tuple(" ".join(key) for key in lattice.DENSITY), ("least", "middle", "most"))
    param_names = ("family", "density")
    unit = "%"

    def setup(self, family: str, density: str) -> None:
        kind, form = family.split()
        low, high = lattice.DENSITY[kind, form]
        self.density = {"least": low + 0.01, "middle": 0.5 * (low + high), "most": high - 0.01}[density]
        self.solved = lattice.solve(Lattice(kind, form, 1.0, porosity=1 - self.density))  # type: ignore[arg-type]

    def track_wall_error(self, family: str, density: str) -> float:
        return 100 * (proving.wall_mm(self.solved) / self.solved.wall_mm - 1)

    def track_thinnest_error(self, family: str, density: str) -> float:
        if self.solved.form != "network" or self.solved.kind in lattice.STOCHASTIC:
            raise NotImplementedError("as thick everywhere")
        return 100 * (proving.neck_mm(self.solved) / self.solved.thin_mm - 1)

    def track_pore_error(self, family: str, density: str) -> float:
        kind, form = family.split()
        return 100 * (proving.pore_mm(self.solved) / solving.pore_median(kind, form, 0, round(self.density, 4)) - 1)


class Coat:
    """A graded coat of 20 cm3 at h 0.05 mm made layer by layer into a file: the peak of the whole process, its libraries
    with it."""

    params = ("stl", "3mf")
    param_names = ("kind",)
    timeout = 1800
    unit = "GB"

    def track_peak_gb(self, kind: str) -> float:
        with tempfile.TemporaryDirectory() as room:
            path = Path(room) / f"coat.{kind}"
            surface = meshing.surface(graded_coat(), 0.05)
            if kind == "stl":
                export.stream_stl(path, surface)
            else:
                export.stream_3mf(path, surface, Pose(), {})
            print(f"{surface.face_count} triangles, {path.stat().st_size / 1e9:.2f} GB", file=sys.stderr)
        return memory_mb("VmHWM") / 1000
