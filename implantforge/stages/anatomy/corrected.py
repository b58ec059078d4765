"""A surgeon's landmarks given back: they replace those found, and what rests on them is reckoned anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from implantforge.core import Anatomy, Array, InputError, Landmark
from implantforge.stages.anatomy import scatter
from implantforge.stages.anatomy.seen import Seen

METHOD = scatter.HAND
PERSON_MM = {**scatter.RATERS_MM, "head_center": 1.8, "acetabulum_center": 1.8, "neck_center": 1.7}
"""One sigma of a landmark that a person sets: the raters' scatter; of a centre, that of six points round the head or four
round the neck."""
UNRATED_MM = 3.3
"""The median of the rated, for those that no rater set."""
FAR_MM = 16.5
"""Twice the largest scatter of the raters (8.2 mm). A correction further than this from the landmark found, or than four of
its sigmas, is a mix-up of bones, sides, landmarks or RAS and LPS; ours lay within 4.9 mm of the raters' mean."""
UNSEEN_MM = 60.0
"""The same of a landmark that is cut off, from where the shape model has it."""
OFF_MM = 5.0
"""A landmark on the bone lies on its surface: the raters' means lie within 1.2 mm of it."""
CENTRES = ("head_center", "neck_center", "neck_base", "knee_center", "shaft_below_trochanter", "acetabulum_center",
           "medial_plateau", "lateral_plateau", "plateau_center", "ankle_center", "lateral_malleolus",
           "canal_isthmus")  # fmt: skip
"""What need not lie on the surface."""
SAME_MM = 0.01


def read_markups(path: Path) -> dict[str, Array]:
    """Label -> point in LPS mm of a 3D Slicer point list; a list in RAS is turned. Points not placed are left out.

    InputError when it is no markups file, holds no placed point, is not in mm, or names a label twice.
    """
    if not path.is_file():
        raise InputError(f"landmarks: {path} does not exist")
    try:
        page = json.loads(path.read_text("utf-8"))
        lists = page["markups"]
        rows = [(item, point) for item in lists for point in item.get("controlPoints", [])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"landmarks: {path.name} is no Slicer markups file: it has no list `markups` of points; save a point list of "
            "3D Slicer as .mrk.json"
        ) from error
    out: dict[str, Array] = {}
    for item, point in rows:
        if point.get("positionStatus", "defined") != "defined":
            continue
        if item.get("coordinateUnits", "mm") not in ("mm", None):
            raise InputError(f"landmarks: {path.name} is in {item['coordinateUnits']}, it must be in mm")
        out |= _point(path, point, str(item.get("coordinateSystem", "LPS")), out)
    if not out:
        raise InputError(f"landmarks: {path.name} holds no placed point: nothing would be corrected")
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


def by_bone(given: Mapping[str, Array], bones: list[str]) -> dict[str, dict[str, Array]]:
    """Bone -> landmark -> point of labels like `femur_left.head_center` (of one bone alone also `head_center`); InputError
    for a bone that is not among them."""
    out: dict[str, dict[str, Array]] = {}
    for label, at in given.items():
        bone, dot, name = label.rpartition(".")
        if not dot and len(bones) == 1:
            bone = bones[0]
        if bone not in bones:
            why = "no such bone here" if dot else "of which bone? labels look like femur_left.head_center"
            raise InputError(f"landmarks: {label}: {why}; there are {', '.join(bones)}")
        out.setdefault(bone, {})[name] = at
    return out


def apply(found: Mapping[str, Anatomy], given: Mapping[str, Array]) -> dict[str, Anatomy]:
    """Anatomies with the given landmarks in place of ours, where their surfaces are no longer at hand: what rests on
    landmarks alone is reckoned anew (`lines.anew`). With the surface `measured` does more.

    InputError as in `chosen` and `by_bone`.
    """
    from implantforge.stages.anatomy import lines

    out = dict(found)
    for bone, mine in by_bone(given, list(found)).items():
        marks = chosen(found[bone], mine)
        if marks:
            kept = {name: why for name, why in found[bone].refused.items() if name not in marks}
            out[bone] = lines.anew(
                replace(found[bone], landmarks={**found[bone].landmarks, **marks}, refused=kept), set(marks)
            )
    return out


def of(found: Mapping[str, Anatomy]) -> list[str]:
    """The landmarks that a person gave, as `bone.landmark`."""
    return [
        f"{bone}.{name}"
        for bone, page in found.items()
        for name, mark in page.landmarks.items()
        if mark.method == METHOD
    ]


def chosen(page: Anatomy, given: Mapping[str, Array], seen: Seen | None = None) -> dict[str, Landmark]:
    """The given landmarks of one bone that are corrections: further than 0.01 mm from ours, or refused by us.

    InputError for a landmark that is not known, too far from ours or from the surface, or swapped with its counterpart.
    """
    out = {}
    for name, at in given.items():
        if name not in page.landmarks and name not in page.refused:
            raise InputError(f"landmarks: {page.bone} has no landmark {name}{_meant(page, name)}")
        if name not in page.landmarks and not _a_landmark(name, seen):
            raise InputError(
                f"landmarks: {page.bone}.{name} is a measure or a frame, no landmark; it follows from others"
            )
        ours = page.landmarks.get(name)
        if ours is not None and np.linalg.norm(ours.at_mm - at) < SAME_MM:
            continue
        _near(page, name, at, seen)
        out[name] = Landmark(name, at, PERSON_MM.get(name, UNRATED_MM), METHOD)
    _in_order(page, out)
    return out


def _a_landmark(name: str, seen: Seen | None) -> bool:
    return seen is None or name in CENTRES or name in PERSON_MM or name in seen.match.atlas.marks


def _meant(page: Anatomy, name: str) -> str:
    near = get_close_matches(name, list(page.landmarks), 1, 0.5)
    return f"; did you mean {near[0]}? " if near else "; " + f"there are {', '.join(page.landmarks)}"


def _near(page: Anatomy, name: str, at: Array, seen: Seen | None) -> None:
    """InputError for a point where this landmark cannot lie."""
    ours = page.landmarks.get(name)
    most, whence = UNSEEN_MM, None
    if ours is not None:
        most, whence = max(FAR_MM, 4.0 * ours.sigma_mm), ours.at_mm
    elif seen is not None and name in seen.match.atlas.marks:
        whence = seen.guess(name)
    gap = 0.0 if whence is None else float(np.linalg.norm(whence - at))
    if gap > most:
        raise InputError(
            f"landmarks: {page.bone}.{name} was moved by {gap:.0f} mm ({most:.0f} at most, twice the scatter of raters): "
            f"{_mixed_up(page, name, at)}"
        )
    if seen is None or ours is None or name in CENTRES:
        return
    off = float(np.linalg.norm(seen.onto(at)[0] - at))
    if off > OFF_MM:
        raise InputError(
            f"landmarks: {page.bone}.{name} lies {off:.0f} mm off the bone's surface ({OFF_MM:.0f} at most): "
            "set it on the bone"
        )


def _mixed_up(page: Anatomy, name: str, at: Array) -> str:
    """What a point far from its landmark may be instead."""
    for flip, word in (([1.0, 1.0, 1.0], ""), ([-1.0, -1.0, 1.0], "in RAS ")):
        gaps = {other: float(np.linalg.norm(mark.at_mm - at * flip)) for other, mark in page.landmarks.items()}
        near = min(gaps, key=lambda other: gaps[other])
        if word and gaps.get(name, np.inf) < FAR_MM:
            return "read in the other of LPS and RAS it would fit: the file's coordinateSystem names the wrong one"
        if not word and gaps[near] < 0.5 * gaps.get(name, np.inf) and gaps[near] < FAR_MM:
            return f"it lies {gaps[near]:.0f} mm from our {near}: are the two swapped?"
    return "another bone, or RAS taken for LPS?"


def _in_order(page: Anatomy, moved: Mapping[str, Landmark]) -> None:
    """InputError where medial and lateral lie the other way round than on the bone."""
    now = {**page.landmarks, **moved}
    for name in now:
        other = name.replace("medial", "lateral")
        if other == name or other not in now or not {name, other} & set(moved):
            continue
        if name not in page.landmarks or other not in page.landmarks:
            continue
        ours = page.landmarks[other].at_mm - page.landmarks[name].at_mm
        if ours @ (now[other].at_mm - now[name].at_mm) <= 0.0:
            raise InputError(f"landmarks: {page.bone}: {name} and {other} are swapped: {other} lies medial of {name}")
