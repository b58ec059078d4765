"""Words in the picture of bones: none lies on another, and of two legs each measure says whose it is."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import trimesh

from implantforge.core import Anatomy, Landmark, Mesh
from implantforge.geom.render import camera
from implantforge.report import bones, canvas


def rod(x: float, z: float, long: float) -> Mesh:
    made = trimesh.creation.cylinder(14.0, long)
    return Mesh(np.asarray(made.vertices) + [x, 0.0, z], np.asarray(made.faces, np.int32))


def page(bone: str, **at: tuple[float, float, float]) -> Anatomy:
    marks = {name: Landmark(name, np.array(place), 0.3, "x") for name, place in at.items()}
    side: Any = bone.partition("_")[2]
    return Anatomy(bone, side, marks, {}, {"mldfa_deg": 87.0, "mmpta_deg": 86.0})


def test_measures_of_two_legs_never_lie_on_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    found, meshes = {}, {}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        x = 55.0 * sign
        ends = {
            "distal_medial_condyle": (x - 25 * sign, 0.0, -415.0),
            "distal_lateral_condyle": (x + 25 * sign, 0.0, -415.0),
        }
        flat = {"medial_plateau": (x - 22 * sign, 0.0, -430.0), "lateral_plateau": (x + 22 * sign, 0.0, -430.0)}
        found[f"femur_{side}"] = page(f"femur_{side}", head_center=(x, 0, 0), knee_center=(x, 0, -400), **ends)
        found[f"tibia_{side}"] = page(f"tibia_{side}", plateau_center=(x, 0, -430), ankle_center=(x, 0, -800), **flat)
        meshes[f"femur_{side}"], meshes[f"tibia_{side}"] = rod(x, -200.0, 400.0), rod(x, -615.0, 370.0)
    said: list[tuple[str, bones.Box]] = []
    write = canvas.write

    def noted(image: Any, xy: Any, text: str, **how: Any) -> None:
        font = canvas.font(how.get("size", 17), how.get("bold", False))
        left, top, right, bottom = font.getbbox(text, anchor=how.get("anchor", "mm"))
        said.append((text, bones.Box(xy[0] + left, xy[1] + top, xy[0] + right, xy[1] + bottom)))
        write(image, xy, text, **how)

    monkeypatch.setattr(canvas, "write", noted)
    around = list(meshes.values())
    scale = camera(around, "anterior", 700).mm_per_px
    for view in ("anterior", "left"):
        said.clear()
        eye = bones._cropped(around, view, scale)
        bones._panel(meshes, found, eye, {f"leg_{side}": {"hka_deg": 181.2} for side in ("left", "right")})
        words = [text for text, _ in said]
        assert ("HKA L 181°" in words and "HKA R 181°" in words) == (view == "anterior")
        for (one, a), (other, b) in combinations(said, 2):
            assert not a.meets(b), (view, one, other)
