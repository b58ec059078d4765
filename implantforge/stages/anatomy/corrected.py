"""A surgeon's landmarks given back: they replace those found, and what rests on them is reckoned anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from implantforge.core import Anatomy, Array, InputError, Landmark

METHOD = "corrected by hand"
SIGMA_MM = 0.0
"""A corrected landmark is taken as said."""
FAR_MM = 60.0
"""A correction further than this from the landmark found is a mix-up of bones, sides or RAS and LPS."""


def read_markups(path: Path) -> dict[str, Array]:
    """Label -> point in LPS mm of a 3D Slicer point list; a list in RAS is turned. Points not placed are left out.

    InputError when it is no markups file, is not in mm, or names a label twice.
    """
    try:
        page = json.loads(path.read_text("utf-8"))
        lists = page["markups"]
        rows = [(item, point) for item in lists for point in item.get("controlPoints", [])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"landmarks: {path.name} is no Slicer markups file ({type(error).__name__})") from error
    out: dict[str, Array] = {}
    for item, point in rows:
        if point.get("positionStatus", "defined") != "defined":
            continue
        if item.get("coordinateUnits", "mm") not in ("mm", None):
            raise InputError(f"landmarks: {path.name} is in {item['coordinateUnits']}, it must be in mm")
        out |= _point(path, point, str(item.get("coordinateSystem", "LPS")), out)
    return out


def _point(path: Path, point: Mapping[str, Any], space: str, known: Mapping[str, Array]) -> dict[str, Array]:
    label = str(point.get("label", ""))
    try:
        at = np.array(point["position"], dtype=float)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"landmarks: {path.name}: {label or 'a point'} has no position") from error
    if at.shape != (3,) or not np.isfinite(at).all():
        raise InputError(f"landmarks: {path.name}: {label or 'a point'} has no position of three numbers")
    if label in known:
        raise InputError(f"landmarks: {path.name} names {label} twice")
    if space.upper() in ("RAS", "0"):
        at = at * [-1.0, -1.0, 1.0]
    elif space.upper() not in ("LPS", "1"):
        raise InputError(f"landmarks: {path.name} is in {space}; RAS or LPS are known")
    return {label: at}


def apply(found: Mapping[str, Anatomy], given: Mapping[str, Array]) -> dict[str, Anatomy]:
    """Anatomies with the given landmarks in place of ours; `given` has labels like `femur_left.head_center` (of one bone
    alone also `head_center`).

    A point within 0.01 mm of ours is no correction. A landmark that was refused may be given. InputError for a bone or a
    landmark that is not known, or one further than 60 mm from where it was found.
    """
    out = dict(found)
    for label, at in given.items():
        bone, dot, name = label.rpartition(".")
        if not dot:
            bone = next(iter(found)) if len(found) == 1 else ""
        if bone not in out:
            raise InputError(f"landmarks: {label}: no such bone here; there are {', '.join(found)}")
        out[bone] = _replaced(out[bone], name, at)
    return {name: remeasured(page) for name, page in out.items()}


def _replaced(page: Anatomy, name: str, at: Array) -> Anatomy:
    mine = page.landmarks.get(name)
    if mine is None and name not in page.refused:
        raise InputError(f"landmarks: {page.bone} has no landmark {name}; there are {', '.join(page.landmarks)}")
    if mine is not None:
        gap = float(np.linalg.norm(mine.at_mm - at))
        if gap < 0.01:
            return page
        if gap > FAR_MM:
            raise InputError(
                f"landmarks: {page.bone}.{name} was moved by {gap:.0f} mm ({FAR_MM:.0f} at most): "
                "another bone, or RAS taken for LPS?"
            )
    marks = {**page.landmarks, name: Landmark(name, at, SIGMA_MM, METHOD)}
    return replace(page, landmarks=marks, refused={key: why for key, why in page.refused.items() if key != name})


def remeasured(page: Anatomy) -> Anatomy:
    """Measures and frames that rest on corrected landmarks, anew; the same page when none was corrected."""
    moved = {name for name, mark in page.landmarks.items() if mark.method == METHOD}
    if not moved:
        return page
    from implantforge.stages.anatomy import lines

    return lines.anew(page, moved)
