"""Solid templates as STEP: a size of an implant without a patient, or the parts of a run where they were planned."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from implantforge.core import Fit, InputError, Pose, Side
from implantforge.implants import Implant, System
from implantforge.pipeline import recipe as recipes
from implantforge.stages import cad


@dataclass(frozen=True, eq=False)
class Drawn:
    """One solid as written: its implant, size, side, frame in words, faces, and the file."""

    implant: str
    size: Any
    side: str
    frame: str
    faces: int
    path: Path


def of_size(name: str, out: Path, *, settings: Iterable[str] = (), side: Side = "left") -> Drawn:
    """A size of an implant in its own axes. InputError without the extra `cad`, for a system of several, or for an implant
    that has no sizes without a patient; GeometryError where no CAD face stands for its shape."""
    cad.library()
    found = recipes.load(name, settings)
    implant = found.implant
    if isinstance(implant, System):
        raise InputError(f"template: {implant.name} is made of {', '.join(implant.parts)}; name the recipe of one")
    if implant.blank is None:
        raise InputError(f"template: {implant.name} has no sizes of its own that could be drawn")
    fit = implant.blank(side, found.params)
    return _drawn(implant, fit, found.params, out, side, "the implant's own axes")


def of_run(folder: Path, out: Path, part: str = "") -> Drawn:
    """The part of a run, where it was planned in the patient's LPS mm; part names one of a system. Errors as `of_size`, and
    InputError when the folder holds no plan."""
    cad.library()
    try:
        page = json.loads((folder / "fit.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"template: {folder} holds no plan (fit.json, recipe.toml)") from error
    found = recipes.load(str(folder / "recipe.toml"))
    members = {member.name: member for member in found.implant.members(found.params)}
    if part not in members:
        names = ", ".join(members)
        raise InputError(f"template: {found.implant.name} is made of {names}; say --part with one of them" if names else
                         f"template: {found.implant.name} is one part; leave --part out")  # fmt: skip
    member, side = members[part], page["side"]
    fit = _fit(page["parts"][part] if part else page)
    return _drawn(member.implant, fit, member.params, out, side, "patient LPS mm, as part.stl")


def _fit(page: dict[str, Any]) -> Fit:
    pose = Pose(np.array(page["pose"]["rotation"]), np.array(page["pose"]["origin_mm"]))
    return Fit(page["implant"], page["params"], pose, page["metrics"])


def _drawn(implant: Implant, fit: Fit, params: Any, out: Path, side: str, frame: str) -> Drawn:
    if out.suffix.lower() not in (".step", ".stp"):
        raise InputError(f"template: {out.name} must end in .step")
    made = implant.design(fit, params)
    try:
        shape = cad.solid(made.envelope, implant.spine(fit, params) if implant.spine else None)
    except cad.NoFace as error:
        raise InputError(f"template: {implant.name} cannot be written as STEP: {error}") from error
    placed = cad.placed(shape, fit.pose)
    cad.write(out, placed)
    return Drawn(implant.name, fit.params.get("size"), side, frame, len(placed.faces()), out)
