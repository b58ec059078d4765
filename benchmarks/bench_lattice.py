"""Lattice numbers and distances: time, and the wall that comes out. asv names."""

import numpy as np

from implantforge.core import Lattice
from implantforge.geom import measure, shapes
from implantforge.stages import lattice


class TimeDistance:
    """True gyroid distance at a million points."""

    def setup(self) -> None:
        bounds = np.array([[0.0] * 3, [10.0] * 3])
        self.field = lattice.field(lattice.solve(Lattice("gyroid", "sheet", 1.5, wall_mm=0.3)), bounds)
        self.points = np.random.default_rng(0).uniform(0, 10, (1_000_000, 3))
        self.field(self.points)

    def time_evaluate(self) -> None:
        self.field(self.points)


class TrackWall:
    """Measured wall over asked wall of a gyroid sheet, %."""

    unit = "%"

    def track_wall_error(self) -> float:
        solved = lattice.solve(Lattice("gyroid", "sheet", 1.5, wall_mm=0.25))
        region = shapes.box((0, 0, 0), (5, 5, 5))
        got = measure.certificate(lattice.field(solved, region.bounds) & region, region, 0.03)
        return 100 * (got["lattice_wall_um"] / 250 - 1)
