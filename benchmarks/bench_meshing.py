"""Field to mesh: time, volume error and memory. asv names."""

import numpy as np

from implantforge.core import Field, Lattice
from implantforge.geom import shapes
from implantforge.geom.meshing import polygonise
from implantforge.stages import lattice


def cup(h_unused: float = 0.0) -> Field:
    """Hemispherical shell R 30/27 mm of sheet gyroid, cell 1.5, wall 0.30 mm."""
    solved = lattice.solve(Lattice("gyroid", "sheet", 1.5, wall_mm=0.3))
    bounds = np.array([[-30.0, -30, 0], [30, 30, 30]])
    sheet = lattice.field(solved, bounds)

    def evaluate(p: np.ndarray) -> np.ndarray:
        x, y, z = p.T
        r = np.sqrt(x * x + y * y + z * z)
        return np.maximum(np.maximum(np.maximum(r - 30, 27 - r), -z), sheet.evaluate(p))

    return Field(evaluate, bounds, sheet.lipschitz)


class TimeCup:
    """The coat of an acetabular cup; h 0.1 gives 18 M triangles."""

    params = (0.2, 0.1)
    param_names = ("h_mm",)
    timeout = 120

    def setup(self, h_mm: float) -> None:
        self.field = cup()
        polygonise(self.field, 0.5)

    def time_polygonise(self, h_mm: float) -> None:
        polygonise(self.field, h_mm)

    def peakmem_polygonise(self, h_mm: float) -> None:
        polygonise(self.field, h_mm)


class TrackSphere:
    """Relative volume error of a ball of 10 mm."""

    params = (1.0, 0.5, 0.25)
    param_names = ("h_mm",)
    unit = "%"

    def track_volume_error(self, h_mm: float) -> float:
        return 100 * abs(polygonise(shapes.sphere((0, 0, 0), 10), h_mm).volume_mm3 / (4e3 / 3 * np.pi) - 1)
