"""From settled vertices to a surface that may be handed on: no self-crossings, few triangles, sigma, a description."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from implantforge.core import Array, GeometryError, Mesh, Volume
from implantforge.core.space import frozen
from implantforge.geom import edges, measure, nearby
from implantforge.stages.surface.blur import Sharpness
from implantforge.stages.surface.fitting import Found, settle
from implantforge.stages.surface.skin import Skin
from implantforge.stages.surface.start import Start

MODEL = 1.17
"""Sigma over the fit's own standard error, from sampled phantoms and a real subject's bones (benchmarks surface)."""
SMOOTHED, ROUNDS = 5, 14


@dataclass(frozen=True, eq=False)
class Surface:
    """mesh: closed, outward, LPS mm. sigma_mm (n,): one standard deviation of each vertex along the normal. seen (n,):
    whether the scan shows an edge there; elsewhere the neighbours and the label decide. cut: ends at the scan's border.
    bound_mm: measured two-sided distance to the surface before simplification."""

    name: str
    mesh: Mesh
    sigma_mm: Array
    seen: NDArray[np.bool_]
    cut: bool
    bound_mm: float
    sharp: Sharpness

    def describe(self) -> dict[str, Any]:
        """What mesh.json says of it: plain numbers."""
        return {
            "volume_mm3": round(self.mesh.volume_mm3, 3),
            "area_mm2": round(self.mesh.area_mm2, 3),
            "watertight": measure.is_manifold(self.mesh) and self.mesh.volume_mm3 > 0,
            "self_crossings": int(nearby.crossing_faces(self.mesh).sum()),
            "vertices": len(self.mesh.vertices),
            "triangles": len(self.mesh.faces),
            "simplification_bound_mm": round(self.bound_mm, 5),
            "sigma_median_mm": round(float(np.median(self.sigma_mm)), 4),
            "sigma_p95_mm": round(float(np.percentile(self.sigma_mm, 95)), 4),
            "no_edge_share": round(float(1.0 - self.seen.mean()), 5),
            "cut_by_scan": self.cut,
            "blur_mm": [round(float(b), 4) for b in self.sharp.blur_mm],
            "blur_measured": self.sharp.edges > 0,
            "noise_hu": round(float(self.sharp.noise_hu), 2),
        }


def finished(volume: Volume, first: Start, sharp: Sharpness, simplify_mm: float, threads: int = 1) -> Surface:
    """The whole way for one bone; GeometryError when the surface cannot be made closed and outward."""
    skin = Skin(first.faces, len(first.vertices))
    spacing = volume.grid.spacing_mm
    scan = edges.Scan(first.volume.hu, first.labels, first.own, spacing, sharp.blur_mm, sharp.noise_hu)
    found = settle(first, skin, scan, threads)
    sigma = sigma_mm(skin, found, first, spacing)
    vertices, strayed = untangle(found.vertices, skin, first)
    sigma = np.hypot(sigma, strayed)
    mesh = Mesh(first.volume.grid.pose.apply(vertices), first.faces)
    if mesh.volume_mm3 <= 0:
        raise GeometryError(f"surface: {first.name} came out inside out ({mesh.volume_mm3:.0f} mm3)")
    seen, bound = found.seen, 0.0
    if simplify_mm > 0:
        fewer, bound = nearby.simplify_within(mesh, simplify_mm)
        near = cKDTree(mesh.vertices).query(fewer.vertices)[1]
        mesh, sigma, seen = fewer, np.hypot(sigma[near], 0.4 * bound), seen[near]
    return Surface(first.name, mesh, frozen(sigma, (-1,)), seen, bool(first.cut.any()), bound, sharp)


def sigma_mm(skin: Skin, found: Found, first: Start, spacing_mm: Array) -> Array:
    """One standard deviation (n,): the fit's own error times its misfit, averaged (in logarithms) over two rings.

    A vertex without an edge is as uncertain as a fifth of the voxel it lies in more than those around it; the flat end
    of a bone cut by the scan as half the voxel.
    """
    normals = skin.normals(found.vertices)
    pixel = np.abs(normals) @ spacing_mm
    error = np.log(found.fitted.variance * np.maximum(found.fitted.residual, 0.7))
    error = skin.spread(np.where(found.seen, error, 0.0), found.seen.astype(np.float64) + 1e-9, 2)
    sigma = MODEL * np.exp(0.5 * error)
    sigma = np.where(found.seen, sigma, np.hypot(np.minimum(sigma, 0.5), 0.2 * pixel))
    return np.where(first.still, 0.5 * pixel, np.clip(sigma, 0.005, 2.0))


def untangle(vertices: Array, skin: Skin, first: Start) -> tuple[Array, Array]:
    """Vertices without self-crossings, and how far (n,) each was moved for it: smoothed there, and where that does not
    do, led back to the first surface, which cannot cross itself, wider every round. GeometryError should even that fail.
    """
    given = vertices
    for number in range(ROUNDS):
        wrong = nearby.crossing_faces(Mesh(vertices, skin.faces))
        if not wrong.any():
            return vertices, np.linalg.norm(vertices - given, axis=1)
        touch = np.zeros(skin.count)
        touch[skin.faces[wrong].ravel()] = 1.0
        for _ in range(1 + number // 2 if number < SMOOTHED else 2 ** (number - SMOOTHED + 1)):
            touch = np.maximum(touch, skin.mean(touch))
        if number < SMOOTHED:
            for _ in range(2):
                smooth = 0.3 * vertices + 0.7 * skin.mean(vertices)
                vertices = np.where((touch > 0)[:, None] & ~first.cut_axis, smooth, vertices)
        elif number < ROUNDS - 1:
            share = np.minimum(2.0 * touch, 1.0)[:, None] * (touch > 0.02)[:, None]
            vertices = vertices + share * (first.vertices - vertices)
        else:
            vertices = first.vertices
    wrong = nearby.crossing_faces(Mesh(vertices, skin.faces))
    if wrong.any():
        raise GeometryError(f"surface: {int(wrong.sum())} faces of {first.name} cross each other: is the label sound?")
    return vertices, np.linalg.norm(vertices - given, axis=1)
