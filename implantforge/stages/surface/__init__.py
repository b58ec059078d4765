"""Bone surfaces at sub-voxel precision: every vertex lies where a blurred layer of cortex fits the voxels around it.

The label gives topology; position comes from the CT: a layer (marrow, cortex, flesh) behind the scan's own blur is fitted
at every vertex, so thin cortex is not moved outward by partial volume (after Treece et al. 2010, Med Image Anal 14:276).
Each vertex carries one standard deviation in mm, calibrated on phantoms.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from implantforge.core import Labels, Mesh, Volume
from implantforge.stages.surface.blur import Sharpness, sharpness
from implantforge.stages.surface.finishing import Surface, finished
from implantforge.stages.surface.labelling import relabel
from implantforge.stages.surface.start import boxes, start

__all__ = ["SIMPLIFY_MM", "Sharpness", "Surface", "bone", "bones", "one", "relabel", "sharpness"]

SIMPLIFY_MM = 0.03
"""Default bound of the two-sided distance between the simplified and the full surface."""


def bone(volume: Volume, labels: Labels, name: str) -> Mesh:
    """Closed, outward-facing surface of one labelled bone in LPS mm, not simplified.

    Ends cut by the scan stay flat. Raises InputError for a bone not in the labels, GeometryError for an empty one.
    """
    return one(volume, labels, name, simplify_mm=0.0).mesh


def one(
    volume: Volume, labels: Labels, name: str, *, simplify_mm: float = SIMPLIFY_MM, sharp: Sharpness | None = None
) -> Surface:
    """Surface of one bone with its uncertainty; sharp is what `sharpness` found for this scan, if it was asked before.

    Where two bones touch, the label's border stands, with a larger sigma. Raises as `bone` does.
    """
    first = start(volume, labels, name)
    return finished(volume, first, sharp or sharpness(volume, labels), simplify_mm, threads=os.cpu_count() or 1)


def bones(
    volume: Volume, labels: Labels, names: Iterable[str] | None = None, *, simplify_mm: float = SIMPLIFY_MM
) -> dict[str, Surface]:
    """Surfaces of the named bones (all in the labels when None), in the order of their names; a thread for each two
    cores at least, four bones at a time at most."""
    wanted = sorted(labels.names) if names is None else sorted(names)
    known = boxes(labels)
    # the largest first, so that no thread is left with one at the end
    size = {name: np.prod([s.stop - s.start for s in known[labels.names[name] - 1] or ()]) for name in wanted}
    order = sorted(wanted, key=lambda name: -size[name])
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        first = {name: pool.submit(start, volume, labels, name, known) for name in order}
        sharp = sharpness(volume, labels)
        made = pool.map(
            lambda name: finished(volume, first.pop(name).result(), sharp, simplify_mm, os.cpu_count() or 1), order
        )
        found = dict(zip(order, made))
    return {name: found[name] for name in wanted}
