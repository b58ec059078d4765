"""What a guide and a shop read: cut planes and datums of the written JSON against the written STL and 3MF."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import drawn_knees
import numpy as np
import pytest

from implantforge.core import Array, Pose
from implantforge.geom import meshing
from implantforge.implants import knee_femoral, knee_tibial, knee_total
from implantforge.pipeline import outputs
from implantforge.pipeline.run import json_text
from implantforge.stages import export

AGREE_MM = 0.02
"""Planes, keel and mesh agree to this plus stated stock."""


class Written(NamedTuple):
    """What stands in the files: fit.json, the machined rows, and by part the corners (n,3,3) of STL and 3MF."""

    fit: dict[str, Any]
    machined: dict[str, dict[str, Any]]
    meshes: dict[str, tuple[Array, Array]]


@pytest.fixture(scope="module", params=["left", pytest.param("right", marks=pytest.mark.slow)])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A planned knee written and read again."""
    side, bones, truth = drawn_knees.draw({"left": 2, "right": 1}[request.param])
    assert side == request.param
    params = knee_total.TotalParams()
    fit = knee_total.plan(drawn_knees.case(side, bones, drawn_knees.pages(side, truth)), params)
    out = tmp_path_factory.mktemp(f"knee_{side}")
    rows: list[dict[str, Any]] = []
    bodies = []
    for name, module in (("femoral", knee_femoral), ("tibial", knee_tibial)):
        made = module.design(fit.parts[name], getattr(params, name))
        rows += [{**row, "part": name} for row in made.machined]
        mesh = meshing.polygonise(made.envelope, 0.8).moved(fit.parts[name].pose)
        export.write_stl(out / f"{name}.stl", mesh)
        bodies.append(export.Body(name, mesh, Pose(np.eye(3), np.array([5.0, 0.0, 0.0]))))
    export.write_bodies(out / "part.3mf", bodies, {"Title": "knee"})
    (out / "fit.json").write_text(json_text(outputs.fit_json(fit, side)))
    (out / "machined.json").write_text(json_text(rows))
    boxed = package(out / "part.3mf")
    machined = {row["name"]: row for row in json.loads((out / "machined.json").read_text())}
    meshes = {name: (stl(out / f"{name}.stl"), boxed[name]) for name in boxed}
    return Written(json.loads((out / "fit.json").read_text()), machined, meshes)


def stl(path: Path) -> Array:
    """Corners (n,3,3) of a binary STL, by its record."""
    record = np.dtype([("normal", "<f4", 3), ("corner", "<f4", (3, 3)), ("rest", "<u2")])
    return np.fromfile(path, record, offset=84)["corner"].astype(np.float64)


def package(path: Path) -> dict[str, Array]:
    """Corners (n,3,3) of every object of a 3MF by its name, in the object's own coordinates; mm asked for."""
    with zipfile.ZipFile(path) as file:
        root = ElementTree.fromstring(file.read("3D/3dmodel.model"))
    assert root.get("unit") == "millimeter"
    space = "{http://schemas.microsoft.com/3dmanufacturing/core/2015/02}"
    out = {}
    for body in root.iter(f"{space}object"):
        points = np.array([[float(v.get(a, "nan")) for a in "xyz"] for v in body.iter(f"{space}vertex")])
        faces = np.array([[int(t.get(a, "-1")) for a in ("v1", "v2", "v3")] for t in body.iter(f"{space}triangle")])
        if len(points):
            out[str(body.get("name"))] = points[faces]
    return out


def on_plane(corners: Array, point: Array, normal: Array, reach_mm: float = 1.0) -> tuple[float, float]:
    """Area of the triangles that face along a plane near it, and how far 99 % of that area lies off it."""
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(across, axis=1) / 2
    off = ((corners - point) @ normal).mean(axis=1)
    along = np.abs(across @ normal) > 0.9998 * 2 * area
    near = along & (np.abs(off) < reach_mm) & (area > 0)
    order = np.argsort(np.abs(off[near]))
    share = np.cumsum(area[near][order]) / area[near].sum()
    return float(area[near].sum()), float(np.abs(off[near])[order][np.searchsorted(share, 0.99)])


def test_cut_planes_of_the_json_are_the_faces_of_both_meshes(files: Written) -> None:
    rows = files.fit["params"]["cuts"]
    assert [row["name"] for row in rows] == [
        "femur distal", "femur posterior", "femur anterior", "femur posterior chamfer", "femur anterior chamfer", "tibia",
    ]  # fmt: skip
    for row in rows:
        assert row["frame"] == "patient LPS mm"
        part = "tibial" if row["bone"] == "tibia" else "femoral"
        for corners in files.meshes[part]:
            normal = np.array(row["normal"])
            assert np.linalg.norm(normal) == pytest.approx(1.0, abs=1e-6)
            area, off = on_plane(corners, np.array(row["point_mm"]), normal)
            assert area > 150.0, row["name"]
            assert off < AGREE_MM, row["name"]
    # what is told to be removed is how far the bone's lowest condyle lies beyond the plane: see the plan's own tests
    assert {"removed_medial_mm", "removed_lateral_mm"} <= set(rows[0])
    assert {"removed_medial_mm", "removed_lateral_mm"} <= set(rows[-1])


def test_both_files_hold_the_same_mesh(files: Written) -> None:
    assert set(files.meshes) == {"femoral", "tibial"}
    for own, boxed in files.meshes.values():
        assert len(own) == len(boxed)
        assert np.abs(own.mean(axis=(0, 1)) - boxed.mean(axis=(0, 1))).max() < 1e-3


def test_keel_and_tray_datums_agree_with_both_meshes(files: Written) -> None:
    rows = files.machined
    keel = rows["keel axis"]
    top, tip = np.array(keel["top_mm"]), np.array(keel["tip_mm"])
    wide, thin = keel["top_diameter_mm"] / 2, keel["tip_diameter_mm"] / 2
    along = np.linalg.norm(tip - top)
    axis = np.array(keel["axis"])
    assert (tip - top) / along == pytest.approx(axis, abs=1e-6)
    sine = (wide - thin) / along
    for corners in files.meshes["tibial"]:
        points = corners.reshape(-1, 3)
        deep = (points - top) @ axis
        aside = np.linalg.norm(points - top - np.outer(deep, axis), axis=1)
        # under the wings stands the stem alone; its side is the cone that both balls touch
        side = (deep > 0.55 * keel["length_mm"]) & (deep < along - 1.0)
        off = aside[side] - (wide - deep[side] * sine) / np.sqrt(1.0 - sine**2)
        assert side.sum() > 300
        assert np.abs(off).max() < AGREE_MM + keel["stock_mm"]
        assert deep.max() == pytest.approx((np.array(keel["at_mm"]) - top) @ axis + keel["length_mm"], abs=AGREE_MM)
        for name in ("tray plane", "bone face"):
            row = rows[name]
            face = np.array(row["at_mm"]) + row["stock_mm"] * np.array(row["axis"])
            area, away = on_plane(corners, face, np.array(row["axis"]), 0.3)
            assert area > 800.0
            assert away < AGREE_MM


def test_a_keel_is_no_thinner_at_the_tray_than_below() -> None:
    params = knee_tibial.TibialParams(fixation="stem")
    field = knee_tibial._fixation(73.0, 40.0, 1.0, params)
    at = knee_tibial.shafts(73.0, 40.0, params)[0][0]
    radii = []
    for depth in (0.0, 5.0, 20.0):
        x = np.arange(0.0, 9.0, 0.01)
        row = field(np.column_stack([at[0] + x, np.full(len(x), at[1]), np.full(len(x), -depth)]))
        radii.append(float(x[row < 0].max()))
    assert radii[0] > radii[1] > radii[2]
    assert 2 * radii[0] >= 12.0
    pegs = knee_tibial.shafts(73.0, 14.0, knee_tibial.TibialParams(fixation="pegs"))
    assert len(pegs) == 4
