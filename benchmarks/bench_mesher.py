"""The mesher's kernels beside their plain numpy twins. asv names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Lattice
from implantforge.geom import meshing, program, shapes
from implantforge.kernels import files, flying, polygonise, rows
from implantforge.kernels.jit import shared
from implantforge.kernels.mc_table import case_table, edge_corners
from implantforge.stages import lattice

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import reference_mesher
from beside import Work, _Kernel, filled


class Mesher(_Kernel):
    """The mesher's kernels one by one, on a gyroid sheet of 8 mm at h 0.1 (580,000 triangles); error: largest
    difference from the twin, in the output's own unit (mm, samples, counts; near and vertices are against the field read
    plainly, in h / 4096 and mm)."""

    params = (("ranges", "near", "pack_signs", "count", "edges", "faces", "vertices", "stl_rows", "vertex_lines",
               "face_lines", "edge_points", "tighten"), ("numpy", "kernel"))  # fmt: skip
    param_names = ("kernel", "method")
    unit = "1"
    sizes = (1, 8)

    def setup(self, *which: str) -> None:
        for size in self.sizes:
            self.blocks_of(float(size))
            self.work = dict(zip(("numpy", "kernel"), getattr(self, which[0])()))[which[1]]
            self.twin = getattr(self, which[0])()[0]
            if size == self.sizes[0]:
                self.work()

    def error(self, result: Any) -> float:
        pairs = zip(result, self.twin()) if isinstance(result, tuple) else ((result, self.twin()),)
        return max(float(np.abs(a.astype(float) - b).max()) for a, b in pairs)

    def blocks_of(self, size: float) -> None:
        """Near values, words and crossed edges of the sheet."""
        region = shapes.box((0, 0, 0), (size,) * 3)
        sheet = lattice.field(lattice.solve(Lattice("gyroid", "sheet", 1.5, wall_mm=0.3)), region.bounds)
        self.body = sheet & region
        self.plan = program.program(self.body.form)
        self.blocks = meshing._active(self.body, self.body.evaluate, self.plan, region.bounds, 0.1)
        self.at = (self.blocks.coords, self.blocks.lookup)
        self.place = (self.blocks.origin_mm, 0.1)
        points = reference_mesher.block_points(self.blocks.coords, 16, *self.place)
        self.points = points[:, :16, :16, :16].reshape(-1, 3)
        self.bits, self.held = meshing._signs(self.body.evaluate, self.plan, self.blocks)
        self.values = self.near_of(self.held)
        self.tri_count, self.table = case_table()
        self.words, counts = np.empty((*self.bits.shape, 4), np.uint16), np.empty((len(self.bits), 2), np.int64)
        flying.count(0, len(self.bits), self.bits, *self.at, meshing._places(), self.words, counts)
        self.starts = tuple(np.concatenate([[0], np.cumsum(c)]) for c in counts.T)
        n = int(self.starts[0][-1])
        self.axis, self.low = np.empty(n, np.uint8), np.empty((n, 3))
        given = (self.blocks.coords, self.words, 0, self.starts[0], *self.place)
        flying.edges(0, len(self.bits), *given, self.axis, self.low)
        self.t = np.random.default_rng(6).uniform(0.1, 0.9, n)
        self.samples = self.plan.evaluate(points.reshape(-1, 3)).astype(np.float32).reshape(-1, 17, 17, 17)

    def near_of(self, held: NDArray) -> NDArray:
        """Samples of the blocks, from what holds them."""
        return held[: self.bits.size * 16].reshape(-1, 16, 16, 16)

    def blockwise(self, kernel: Any, *given: Any) -> None:
        """A kernel over all blocks, as the mesher shares it out."""
        shared(kernel, len(self.bits), meshing.SOME, *given)

    def ranges(self) -> tuple[Work, Work]:
        return lambda: self.body.evaluate(self.points), lambda: self.plan.evaluate(self.points)

    def near(self) -> tuple[Work, Work]:
        return (lambda: reference_mesher.near_values(self.body.evaluate(self.points), 0.1).reshape(self.values.shape),
                lambda: self.near_of(meshing._signs(self.body.evaluate, self.plan, self.blocks)[1]))  # fmt: skip

    def pack_signs(self) -> tuple[Work, Work]:
        given = (self.blockwise, self.bits.shape, flying.pack_signs, self.values)
        return lambda: reference_mesher.pack_signs(self.values), lambda: filled(*given, dtype=np.uint16)

    def count(self) -> tuple[Work, Work]:
        def kernel() -> NDArray:
            words, counts = np.empty_like(self.words), np.empty((len(self.words), 2), np.int64)
            self.blockwise(flying.count, self.bits, *self.at, meshing._places(), words, counts)
            return counts

        return lambda: reference_mesher.count_surface(self.samples, self.tri_count)[1], kernel

    def edges(self) -> tuple[Work, Work]:
        def kernel() -> NDArray:
            axis, low = np.empty_like(self.axis), np.empty_like(self.low)
            given = (self.blocks.coords, self.words, 0, self.starts[0], *self.place)
            self.blockwise(flying.edges, *given, axis, low)
            return low[np.lexsort((*np.rint(low / 0.05).T, axis))]

        def plain() -> NDArray:
            axis, _, low = reference_mesher.edge_vertices(self.blocks.coords, self.samples, *self.place)
            return low[np.lexsort((*np.rint(low / 0.05).T, axis))]

        return plain, kernel

    def faces(self) -> tuple[Work, Work]:
        given = (self.bits, self.words.reshape(-1), *self.at, meshing._places(), 16, *self.starts, 0)
        shape = int(self.starts[1][-1]) * 3
        full = (self.tri_count, self.table, edge_corners())

        def plain() -> NDArray:
            axis, _, low = reference_mesher.edge_vertices(self.blocks.coords, self.samples, *self.place)
            mine, theirs = (np.lexsort((*np.rint(p / 0.05).T, a)) for p, a in ((self.low, self.axis), (low, axis)))
            renumber = np.empty(len(mine), np.int64)
            renumber[theirs] = mine
            return renumber[reference_mesher.block_faces(*self.at, self.samples, full)]

        return plain, lambda: filled(self.blockwise, shape, flying.faces, *given, dtype=np.int32).reshape(-1, 3)

    def vertices(self) -> tuple[Work, Work]:
        place = (*self.place, 0.01, np.zeros(3, np.float32), np.array([-99.0] * 3 + [99.0] * 3, np.float32))
        given = (*self.plan.arrays, *self.at, self.held, self.words.reshape(-1), self.starts[0], place, 0)
        beyond = np.empty(len(self.bits), np.bool_)

        def plain() -> NDArray:
            return meshing._placed(self.plan.evaluate, self.blocks, self.words, 0, len(self.bits), self.starts[0])

        return plain, lambda: filled(self.blockwise, self.low.shape, rows.vertices, *given, beyond, dtype=np.float32)

    def stl_rows(self) -> tuple[Work, Work]:
        points, faces = meshing.triangles(self.body, 0.1)
        given = (points, points.view(np.uint16), faces, 0)
        return (lambda: reference_mesher.stl_rows(points, faces),
                lambda: filled(files.stl_rows, (len(faces), 25), *given, dtype=np.uint16))  # fmt: skip

    def vertex_lines(self) -> tuple[Work, Work]:
        return self.lines(0, files.vertex_lines, 64, ('<vertex x="', '" y="', '" z="', '"/>\n'))

    def face_lines(self) -> tuple[Work, Work]:
        return self.lines(1, files.face_lines, 60, ('<triangle v1="', '" v2="', '" v3="', '"/>\n'))

    def lines(self, which: int, kernel: Any, width: int, words: tuple[str, str, str, str]) -> tuple[Work, Work]:
        given = meshing.triangles(self.body, 0.1)[which]
        plain = tuple(np.frombuffer(word.encode(), np.uint8) for word in words)
        return (lambda: reference_mesher.mesh_lines(given, words, width),
                lambda: filled(kernel, (len(given), width), given, plain, dtype=np.uint8))  # fmt: skip

    def edge_points(self) -> tuple[Work, Work]:
        given = (self.low, self.axis, 0.1, self.t)
        return (lambda: reference_mesher.edge_points(*given),
                lambda: filled(polygonise.edge_points, self.low.shape, *given))  # fmt: skip

    def tighten(self) -> tuple[Work, Work]:
        found = np.random.default_rng(5).normal(size=len(self.t)) * 1e-3
        bracket, ends = np.tile([0.0, 1.0], (len(found), 1)), np.stack([-self.t, 1 - self.t], axis=1) / 10

        def kernel() -> tuple[NDArray, ...]:
            inner, outer, t = bracket.copy(), ends.copy(), self.t.copy()
            polygonise.tighten(found, False, 5e-4, inner, outer, t)
            return inner, outer, t

        return lambda: reference_mesher.tighten(found, False, 5e-4, bracket, ends, self.t), kernel
