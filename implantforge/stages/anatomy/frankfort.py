"""The Frankfort plane of a skull from the points a person gives: both porions and an orbitale."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.spatial import cKDTree

from implantforge.core import Array, InputError, Landmark, Pose
from implantforge.stages.anatomy import scatter

PORIONS, ORBITALES = ("porion_left", "porion_right"), ("orbitale_left", "orbitale_right")
NEEDS = ("the ear canals' upper rims and the orbits' lower rims are not looked for: give porion_left, porion_right and "
         "orbitale_left (or _right) as landmarks")  # fmt: skip
SIGMA_MM = 3.3
"""One sigma of a point that a person sets; see `corrected.UNRATED_MM`."""
OFF_MM, UNEVEN_MM = 5.0, 12.0
"""Points lie on the bone. Left and right ones mirror each other within twice the scatter of two and the skull's own
difference of its sides."""


def checked(given: Mapping[str, Array], points: Array, normal: Array, at: Array) -> dict[str, Landmark]:
    """The given points as landmarks; InputError for a name that is none of the four, a point off the surface (points (n,3)
    spread over it), or a pair that the plane of symmetry (unit normal, a point) does not mirror."""
    tree = cKDTree(points)
    for name, place in given.items():
        if name not in (*PORIONS, *ORBITALES):
            raise InputError(
                f"landmarks: skull has no landmark {name}; there are {', '.join((*PORIONS, *ORBITALES))}, given by a person"
            )
        off = float(tree.query(place)[0])
        if off > OFF_MM:
            raise InputError(
                f"landmarks: skull.{name} lies {off:.0f} mm off the bone's surface ({OFF_MM:.0f} at most): set it on "
                "the bone"
            )
    for left, right in (PORIONS, ORBITALES):
        if left in given and right in given:
            uneven = apart_mm(given[left], given[right], normal, at)
            if uneven > UNEVEN_MM:
                raise InputError(
                    f"landmarks: skull.{left} lies {uneven:.0f} mm from the mirror image of {right} "
                    f"({UNEVEN_MM:.0f} at most): one of them is another point"
                )
    return {name: Landmark(name, np.asarray(place, float), SIGMA_MM, scatter.HAND) for name, place in given.items()}


def apart_mm(one: Array, other: Array, normal: Array, at: Array) -> float:
    """How far one point lies from the mirror image of another in a plane."""
    return float(np.linalg.norm(one - (other - 2.0 * ((other - at) @ normal) * normal)))


def plane(marks: Mapping[str, Landmark], points: Array) -> Pose | str:
    """The plane through both porions and the left orbitale (Frankfurter Verstaendigung 1884; the right one where the left is
    not given): origin between the porions, x left, y back, z up. What is missing, in words, where it cannot be.

    InputError when it leaves more of the skull (points (n,3) of its surface) below than above: sides swapped.
    """
    missing = [name for name in PORIONS if name not in marks]
    eye = next((marks[name].at_mm for name in ORBITALES if name in marks), None)
    if missing or eye is None:
        lacks = ", ".join([*missing, *(["an orbitale"] if eye is None else [])])
        return f"{NEEDS} (missing: {lacks})" if marks else NEEDS
    left, right = (marks[name].at_mm for name in PORIONS)
    origin = (left + right) / 2.0
    x = (left - right) / np.linalg.norm(left - right)
    y = origin - eye - ((origin - eye) @ x) * x
    y /= np.linalg.norm(y)
    frame = Pose(np.stack([x, y, np.cross(x, y)], axis=1), origin)
    height = (points - origin) @ frame.rotation[:, 2]
    if height.max() < -height.min():
        raise InputError("landmarks: skull: left and right are swapped: the vault lies below the ears and eyes given")
    return frame
