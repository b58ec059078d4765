"""A ball reamed into a socket: what bone its surface meets, what it leaves behind the floor, how good that bone is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from implantforge.core import Array, Field, Mesh, Volume
from implantforge.geom import shapes

CONTACT_MM = 0.5
"""A surface this near bone counts as covered."""
FIELD_MM, BAND_MM = 1.25, 2.0
FLOOR_DEG = 30.0
"""The floor is what lies within this angle of straight medial."""
QUARTERS = ("superior", "posterior", "inferior", "anterior")
REACH_MM = 3.0
_STEP_MM = 0.25
_BEHIND_MM = 14.0


@dataclass(frozen=True, eq=False)
class Socket:
    """bone: distance to a hip bone, mm; ways (n,3): unit vectors from the cup's centre to equal shares of its dome; rim
    (n,): height of each under the rim as the sine of the angle; opening, medial: unit vectors; all patient LPS."""

    bone: Field
    ways: Array
    rim: Array
    opening: Array
    medial: Array

    def covered(self, centre_mm: Array, radius_mm: float) -> NDArray[np.bool_]:
        """(n,) Bone meets the surface of this radius there. Only rows of `dome` count."""
        return self.bone(centre_mm + radius_mm * self.ways) <= CONTACT_MM

    def dome(self, radius_mm: float, band_mm: float) -> NDArray[np.bool_]:
        """(n,) More than band_mm under the rim."""
        return self.rim * radius_mm > band_mm

    def floor_left_mm(self, centre_mm: Array, reamed_mm: float) -> float:
        """Least bone behind the reamed ball's floor, mm along rays from its centre; negative where the ball comes out of
        the bone by that much. Bone that the ball does not touch counts as it stands."""
        ways = self.ways[self.ways @ self.medial > np.cos(np.radians(FLOOR_DEG))]
        _, left = self._behind(centre_mm, reamed_mm, ways)
        left = left[np.isfinite(left)]
        return float(left.min()) if len(left) else float("-inf")

    def through_mm3(self, centre_mm: Array, outer_mm: float) -> float:
        """Volume of a ball of this radius that lies beyond the pelvic side of the bone, within 60 deg of straight medial:
        rays that met bone and left it again inside the ball."""
        ways = self.ways[self.ways @ self.medial > 0.5]
        last, left = self._behind(centre_mm, outer_mm, ways)
        out = np.where(np.isfinite(left) & (left < 0), outer_mm**3 - last**3, 0.0)
        return float(out.sum()) / 3.0 * 2.0 * np.pi / len(self.ways)

    def surface_mm(self, outer_mm: float, ring_mm: float) -> Array:
        """(n,) distance from the centre to a dome whose equator is ring_mm wider on the radius."""
        return ring_mm * np.sqrt(1 - self.rim**2) + np.sqrt(outer_mm**2 - (ring_mm * self.rim) ** 2)

    def gaps_mm(self, centre_mm: Array, reamed_mm: float, surface_mm: Array) -> Array:
        """(n,) from the cup's surface outward to the bone that reaming leaves, negative for press-fit; nan where none lies
        within REACH_MM."""
        out = np.full(len(self.ways), np.nan)
        for radius in np.arange(reamed_mm, surface_mm.max() + REACH_MM, 0.1):
            fresh = np.flatnonzero(np.isnan(out))
            hit = fresh[self.bone(centre_mm + radius * self.ways[fresh]) <= 0.0]
            out[hit] = radius - surface_mm[hit]
        return np.where(out <= REACH_MM, out, np.nan)

    def by_quarter(self, frame: Array, met: NDArray[np.bool_], dome: NDArray[np.bool_]) -> dict[str, float]:
        """Coverage (%) of the dome's four quarters about its axis; frame: columns left, posterior, superior."""
        up = frame[:, 2] - (frame[:, 2] @ self.opening) * self.opening
        up /= np.linalg.norm(up)
        back = np.cross(self.opening, up)
        back *= np.sign(back @ frame[:, 1])
        quarter = np.rint(np.arctan2(self.ways @ back, self.ways @ up) / (np.pi / 2)).astype(int) % 4
        return {name: 100.0 * float(met[dome & (quarter == i)].mean()) for i, name in enumerate(QUARTERS)}

    def bone_along_mm(self, centre_mm: Array, way: Array, from_mm: float) -> float:
        """Bone that a screw along a way would hold before it leaves it, up to 60 mm; 0 where it meets none in 4 mm."""
        inside = self.bone(centre_mm + np.arange(from_mm, from_mm + 60.0, 0.5)[:, None] * way) < 0
        if not inside[:8].any():
            return 0.0
        rest = ~inside[int(np.argmax(inside)) :]
        return 0.5 * float(np.argmax(rest) if rest.any() else len(rest))

    def _behind(self, centre: Array, radius: float, ways: Array) -> tuple[Array, Array]:
        """Where each ray leaves the first bone that is not wholly inside the ball, and how far beyond the ball (or the
        bone's own near side) that is; nan without bone, and where the ray leaves it on the joint's side, past the rim."""
        at = np.arange(0.6 * radius, radius + _BEHIND_MM, _STEP_MM)
        value = self.bone((centre + at[:, None, None] * ways).reshape(-1, 3)).reshape(len(at), -1)
        last, left = _first_beyond(at, value, radius)
        out = np.nan_to_num(centre + last[:, None] * ways)
        steep = np.stack([self.bone(out + 0.6 * axis) - self.bone(out - 0.6 * axis) for axis in np.eye(3)], axis=1)
        left[steep @ self.medial < 0.3 * np.linalg.norm(steep, axis=1)] = np.nan
        return last, left


def _first_beyond(at: Array, value: Array, radius: float) -> tuple[Array, Array]:
    """Along rays (columns of value, negative in bone, at heights `at`): where each leaves the first bone that ends beyond
    the radius, or else its last bone, and how far beyond the radius (or that bone's near side) it does; nan without."""
    inside = value < 0
    step = np.where(inside[1:] != inside[:-1], value[:-1] - value[1:], 1.0)
    crossing = at[:-1, None] + _STEP_MM * value[:-1] / step
    out = np.full(value.shape, np.nan)
    out[:-1][inside[:-1] & ~inside[1:]] = crossing[inside[:-1] & ~inside[1:]]
    out[-1, inside[-1]] = at[-1]
    into = np.full(value.shape, -np.inf)
    into[0, inside[0]] = at[0]
    into[1:][~inside[:-1] & inside[1:]] = crossing[~inside[:-1] & inside[1:]]
    into = np.maximum.accumulate(into, axis=0)
    beyond = np.nan_to_num(out, nan=-np.inf) > radius
    some, ends = beyond.any(axis=0), np.isfinite(out)
    row = np.where(some, beyond.argmax(axis=0), len(at) - 1 - ends[::-1].argmax(axis=0))
    ray = np.arange(value.shape[1])
    last = out[row, ray]
    return last, last - np.where(some, np.maximum(radius, into[row, ray]), radius)


def of(mesh: Mesh, opening: Array, medial: Array, handed: float, count: int = 2000) -> Socket:
    """The socket of a hip bone for a cup that opens along a unit vector. The points are a Fibonacci sphere turned with
    the cup and mirrored with the side (handed: 1 left, -1 right): a moved or mirrored patient is asked at the same
    places."""
    index = np.arange(count) + 0.5
    height, turn = index / count, np.pi * (1 + 5**0.5) * index
    across = medial - (medial @ opening) * opening
    across /= np.linalg.norm(across)
    flat = np.sqrt(1 - height**2)
    beside = handed * np.cross(opening, across)
    ways = (flat * np.cos(turn))[:, None] * across + (flat * np.sin(turn))[:, None] * beside - height[:, None] * opening
    return Socket(shapes.from_mesh(mesh, FIELD_MM, BAND_MM), ways, height, opening, medial)


class Asked(NamedTuple):
    """What a place in the socket must give: coverage of the dome below band_mm, bone behind the floor; and how far from
    the native centre it may lie, medial positive."""

    coverage_pct: float
    floor_mm: float
    band_mm: float
    reach_mm: tuple[float, float]


def place(seat: Socket, centre: Array, outer: float, reamed: float, asked: Asked) -> tuple[float, float, float]:
    """The medial shift (mm) nearest nought at which a cup is covered and spares the floor, to 1/64 of a step, with its
    coverage (%) and the bone left (mm); where none does, the one that misses least."""
    dome = seat.dome(outer, asked.band_mm)

    def look(shift: float) -> tuple[float, float, float]:
        at = centre + shift * seat.medial
        cover = 100.0 * float(seat.covered(at, outer)[dome].mean())
        left = seat.floor_left_mm(at, reamed)
        return min((cover - asked.coverage_pct) / 10.0, left - asked.floor_mm), cover, left

    steps = np.arange(round(asked.reach_mm[0] / _STEP_MM), round(asked.reach_mm[1] / _STEP_MM) + 1) * _STEP_MM
    best, found = 0.0, look(0.0)
    for trial in sorted(steps.tolist(), key=lambda s: (abs(s), -s)) if found[0] < 0 else ():
        seen = look(trial)
        if seen[0] > found[0]:
            best, found = trial, seen
        if seen[0] >= 0:
            break
    bad = best - float(np.sign(best)) * _STEP_MM
    for _ in range(6 if best and found[0] >= 0 else 0):
        seen = look((bad + best) / 2.0)
        if seen[0] >= 0:
            best, found = (bad + best) / 2.0, seen
        else:
            bad = (bad + best) / 2.0
    return best, found[1], found[2]


def opening(frame: Array, side: str, inclination_deg: float, anteversion_deg: float) -> Array:
    """Unit vector along which a cup of these radiographic angles opens (Murray 1993); frame: left, posterior, superior."""
    ri, ra = np.radians(inclination_deg), np.radians(anteversion_deg)
    across = np.sin(ri) * np.cos(ra) * (1.0 if side == "left" else -1.0)
    return frame @ np.array([across, -np.sin(ra), -np.cos(ri) * np.cos(ra)])


def hu_at(volume: Volume, points_mm: Array) -> Array:
    """(n,) HU read linearly; nan outside the scan."""
    index = volume.grid.to_index(points_mm)
    within = ((index >= 0) & (index <= np.array(volume.grid.shape) - 1)).all(axis=1)
    out = np.full(len(points_mm), np.nan)
    if within.any():
        low = np.floor(index[within].min(axis=0)).astype(int)
        high = np.ceil(index[within].max(axis=0)).astype(int) + 1
        window = volume.hu[tuple(slice(a, b) for a, b in zip(low, high))].astype(np.float32)
        out[within] = map_coordinates(window, (index[within] - low).T, order=1, mode="nearest")
    return out
