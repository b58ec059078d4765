"""The gate before measuring: units, which bone, which side. What contradicts the name given is refused with numbers."""

from __future__ import annotations

import numpy as np

from implantforge.core import AnatomyError, InputError, Mesh
from implantforge.stages.anatomy import body as bodies
from implantforge.stages.anatomy import edges, register
from implantforge.stages.anatomy.atlas import NAMES
from implantforge.stages.anatomy.register import Cloud, Match
from implantforge.stages.anatomy.seen import Seen

POINTS = 40000
LONGEST_MM = 650.0
SHORTEST_MM = {"femur": 60.0, "tibia": 60.0, "hip": 60.0, "fibula": 60.0, "patella": 15.0, "sacrum": 40.0}
COVERED = 0.6
"""A tibia fused with its fibula follows a tibia over 0.7 of its surface."""
LIMIT_MM = {"femur": 1.5, "tibia": 1.5, "hip": 2.2}
DOUBT_MM = 1.3
"""Real bones lie 0.6-1.3 mm RMS (at a grown patient's size) from the shape that the model bends to them, tibias 1.3-2.5 mm
from a femur's; above it other bones are tried. 100 hip bones drawn with joints and a sacrum of their own lie 0.5-1.7 mm
(mean 1.08, standard deviation 0.28; the limit is four of them up) and what is no hip 1.2-2.6 mm, for with all its modes the
model bends to much: a hip is told by how it lies before that."""
LAID = {"hip": 7.0}
"""Highest score (mm, see `register.judged`) of the first lay, bent with ten modes. Hip bones: 100 drawn ones 2.7-4.6, with
half of the sacrum grown to them 4.1-4.6, cut to 70-90 % of their height 2.9-5.0, real ones 3.5; sacra, femora, pelvises and
hip bones of which less than 70 % is left 9.4-14.1. Nothing was found between."""
USUAL, POSSIBLE = (0.8, 1.2), (0.25, 1.4)
"""Times the size of the shape model's mean, a femur of 435 mm. Usual: grown femora measure 400-460 mm on average, a standard
deviation is 25 mm, 3.5 of them 20 %. Possible: at birth a femur's shaft is 75 mm long and its ends still cartilage; 1.4 is a
femur of 609 mm, at 26.7 % of stature (Feldesman 1990) one of a person 2.3 m tall."""
LONG_MM = {"femur": 435.0, "tibia": 366.0, "hip": 201.0}
HOLES, TORN, SHREDS = 30, 0.03, 0.3
"""Holes, and open edges a triangle, with which sections can still be read: 0.3 % of the triangles missing changes nothing,
2 % moves the neck's axis by 7 deg."""
_UNITS = (("metres", 1000.0), ("inches", 25.4), ("centimetres", 10.0))


def one(mesh: Mesh, name: str) -> Seen:
    """The registered bone of a name like `femur_left`.

    InputError for units that are not mm; AnatomyError when the shape is another bone, or of the other side, or of
    neither so clearly that it could be measured.
    """
    kind, _, side = name.partition("_")
    body, notes = bodies.one(mesh, name)
    _units(body, kind, name)
    torn = _whole_enough(body, name)
    cloud = register.sample(body, POINTS)
    ranked = register.best(cloud, (kind,))
    if not ranked:
        raise AnatomyError(f"{name}: not a {kind}: its proportions are of another bone{_other(cloud, kind, None)}")
    match = register.refined(ranked[0], cloud)
    _judge(match, ranked, cloud, name)
    return Seen(name, side, body, cloud, match, notes=notes | torn.notes() | _size(match), torn=torn.middles)


def _size(match: Match) -> dict[str, float]:
    """`size_to_grown` of a bone that is smaller or larger than those of nearly all grown people."""
    low, high = USUAL
    return {} if low <= match.scale <= high else {"size_to_grown": match.scale}


def _whole_enough(mesh: Mesh, name: str) -> edges.Edges:
    """The open edges of a surface; InputError for one torn all over: its sections would be read from what is left. Cuts and
    a few holes may be."""
    found = edges.of(mesh)
    many = len(found.middles)
    if many > TORN * len(mesh.faces) and (found.places > HOLES or many > SHREDS * len(mesh.faces)):
        raise InputError(
            f"{name}: the surface has holes everywhere ({found.places} apart, {many} open edges): close it first, measures "
            f"would be read from what is left (cuts and up to {HOLES} holes may stay)"
        )
    return found


def _units(mesh: Mesh, kind: str, name: str) -> None:
    size = float(np.linalg.norm(np.ptp(mesh.vertices, axis=0)))
    low = SHORTEST_MM[kind]
    if low <= size <= LONGEST_MM:
        return
    guess = [word for word, mm in _UNITS if low <= size * mm <= LONGEST_MM]
    hint = f"; in {guess[0]} it would be {size * dict(_UNITS)[guess[0]]:.0f} mm" if guess else ""
    raise InputError(
        f"{name}: {size:.4g} from corner to corner, a {kind} measures {low:.0f}-{LONGEST_MM:.0f} mm (that of a person 2.3 m "
        f"tall){hint}: save the mesh in mm"
    )


def _judge(match: Match, ranked: list[Match], cloud: Cloud, name: str) -> None:
    kind, _, side = name.partition("_")
    relative, limit, laid = match.residual_mm / match.scale, LIMIT_MM[kind], LAID.get(kind, np.inf)
    if match.covered < COVERED or relative > limit or ranked[0].score > laid:
        first = f", {ranked[0].score:.1f} mm off at first (limit {laid})" if ranked[0].score > laid else ""
        part = f", or less than 70 % of its height is there; a whole {kind} is needed" if kind == "hip" else ""
        raise AnatomyError(
            f"{name}: not a {kind} as far as the shape shows: {100 * match.covered:.0f} % of the surface follows one "
            f"({100 * COVERED:.0f} % needed) with {relative:.2f} mm RMS (limit {limit}){first}"
            f"{_other(cloud, kind, match) or part}"
        )
    if relative > DOUBT_MM or match.covered < 0.93:
        other = _other(cloud, kind, match)
        if other:
            raise AnatomyError(f"{name}: not a {kind} as far as the shape shows: {relative:.1f} mm RMS from one{other}")
    low, high = POSSIBLE
    if not low < match.scale < high:
        size = float(np.linalg.norm(np.ptp(cloud.points, axis=0)))
        long = match.scale * LONG_MM[kind]
        raise AnatomyError(
            f"{name}: no one has it of this size: {size:.0f} mm from corner to corner, {match.scale:.2f} times a "
            f"grown {kind}, whole {long:.0f} mm long ({low * LONG_MM[kind]:.0f}-{high * LONG_MM[kind]:.0f}, newborn to "
            "2.3 m tall): check the units and the scale of the mesh"
        )
    found = "right" if match.mirrored else "left"
    if side in ("left", "right") and found != side:
        raise AnatomyError(
            f"{name}: this is the bone of the other side, or mirrored: as a {found} {kind} it lies {match.score:.1f} from "
            f"the shape, as a {side} one {_score(ranked, side)}"
        )


def _score(ranked: list[Match], side: str) -> str:
    mine = [match.score for match in ranked if ("right" if match.mirrored else "left") == side]
    return f"{min(mine):.1f}" if mine else "much further"


def _other(cloud: Cloud, kind: str, match: Match | None) -> str:
    """What it looks like more, if anything."""
    others = register.best(cloud, tuple(name for name in NAMES if name != kind))
    if not others or (match is not None and others[0].score > match.score):
        return ""
    name = others[0].atlas.name
    side = "" if name == "sacrum" else "right " if others[0].mirrored else "left "
    return f"; it looks like a {side}{name} ({100 * others[0].covered:.0f} %)"
