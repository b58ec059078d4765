"""Label maps that agree with finished surfaces."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from implantforge.core import Labels, Mesh
from implantforge.geom import inside
from implantforge.stages.surface.finishing import Surface


def relabel(labels: Labels, surfaces: Mapping[str, Surface | Mesh]) -> Labels:
    """Labels in which a voxel belongs to a bone when its centre lies inside the bone's surface.

    Bones without a surface keep their voxels where no surface claims them. A voxel inside two surfaces keeps the bone it
    had, else goes to the first by name. InputError for a surface the labels do not know.
    """
    kept = np.arange(256, dtype=np.uint8)
    for name in surfaces:
        if name not in labels.names:
            labels.mask(name)
        kept[labels.names[name]] = 0
    values = kept[labels.values]
    taken = np.zeros(values.shape, np.bool_)
    for name in sorted(surfaces):
        own = np.uint8(labels.names[name])
        given = surfaces[name]
        window, held = inside.voxels(given if isinstance(given, Mesh) else given.mesh, labels.grid)
        before = labels.values[window] == own
        claim = held & (before | ~taken[window])
        values[window][claim] = own
        taken[window] |= held
    return Labels(labels.grid, values, labels.names)
