"""Where a surface ends: the edges of its holes and cuts, which bone cannot have."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from implantforge.core import Array, Mesh

COUNT, LARGEST_MM = "open_places", "open_largest_mm"
"""Measures of a surface with holes or cuts: how many, and the widest across; absent for a closed one."""
BESIDE = "beside an open edge"
"""Part of the method of a landmark that lies there."""


class Edges(NamedTuple):
    """Middles (m,3) mm of all open edges and the number (m,) of the hole or cut that each belongs to."""

    middles: Array
    place: NDArray[np.int32]

    @property
    def places(self) -> int:
        """How many holes and cuts there are."""
        return int(self.place.max()) + 1 if len(self.place) else 0

    def notes(self) -> dict[str, float]:
        """The measures COUNT and LARGEST_MM, none for a closed surface."""
        if not len(self.place):
            return {}
        rims = [self.middles[self.place == one] for one in range(self.places)]
        # from the middle, for a long diagonal of a box is no width
        wide = [2.0 * np.linalg.norm(rim - (rim.min(axis=0) + rim.max(axis=0)) / 2.0, axis=1).max() for rim in rims]
        return {COUNT: float(self.places), LARGEST_MM: float(max(wide))}


def of(mesh: Mesh) -> Edges:
    """The edges that only one triangle has."""
    ends = np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64), axis=1)
    keys, times = np.unique(ends[:, 0] * len(mesh.vertices) + ends[:, 1], return_counts=True)
    a, b = np.divmod(keys[times == 1], len(mesh.vertices))
    used, place = np.unique(np.concatenate([a, b]), return_inverse=True)
    a_, b_ = place[: len(a)], place[len(a) :]
    links = coo_array((np.ones(len(a), bool), (a_, b_)), shape=(len(used),) * 2)
    label = connected_components(links, directed=False)[1] if len(a) else np.zeros(0, np.int32)
    return Edges((mesh.vertices[a] + mesh.vertices[b]) / 2.0, label[a_].astype(np.int32))
