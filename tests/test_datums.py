"""Datums beside a part against the part: cones, balls and planes fitted to the mesh of the written 3MF, read by zip, XML
and trimesh, not by what wrote it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from lxml import etree
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from implantforge import implants
from implantforge.core import Array, Fit, Pose
from implantforge.geom import measure, meshing
from implantforge.pipeline import outputs
from implantforge.pipeline.run import json_text
from implantforge.stages import export

PLACE = Pose(Rotation.from_euler("xyz", [0.3, -0.8, 2.1]).as_matrix(), np.array([-71.3, 22.9, 811.4]))
WITHIN_MM = 0.02


def written(name: str, folder: Path, **more: Any) -> tuple[Array, dict[str, Any], Any]:
    """Vertices (n,3) and datums by name of a part's 3MF, and the part's parameters. The part lies anywhere in the room."""
    implant = implants.one(name)
    params = implant.Params(**more)
    assert implant.blank is not None
    blank = implant.blank("left", params)
    made = implant.design(Fit(blank.implant, blank.params, PLACE, {}), params)
    mesh = measure.simplify(meshing.polygonise(made.envelope, 0.15), 0.02).moved(PLACE)
    path = folder / "part.3mf"
    export.write_3mf(path, mesh, Pose(), {}, extra={"Datums": outputs.datums(made.machined)})
    with zipfile.ZipFile(path) as packed:
        page = etree.fromstring(packed.read("3D/3dmodel.model"))
    notes = {row.get("name").rpartition(":")[2]: row.text for row in page.iter("{*}metadata")}
    read = trimesh.load(path, process=False)
    geometry = read.to_geometry() if isinstance(read, trimesh.Scene) else read
    return np.asarray(geometry.vertices), {row["name"]: row for row in json.loads(notes["Datums"])}, params


def along(points: Array, at: Any, axis: Any) -> tuple[Array, Array]:
    """Height along an axis and distance from it."""
    away = points - np.asarray(at)
    height = away @ np.asarray(axis)
    return height, np.linalg.norm(away - height[:, None] * np.asarray(axis), axis=1)


def across(axis: Array) -> Array:
    """(2,3) unit vectors at right angles to an axis and to each other."""
    first = np.cross(axis, np.eye(3)[int(np.abs(axis).argmin())])
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(axis, first)])


def cone(points: Array, at: Array, axis: Array) -> tuple[Array, Array, float, float]:
    """The cone nearest the points: a point of its axis level with `at`, its direction, radius there, slope of the radius."""
    sides = across(axis)

    def lie(x: Array) -> tuple[Array, Array]:
        way = axis + x[2:4] @ sides
        return at + x[:2] @ sides, way / np.linalg.norm(way)

    def off(x: Array) -> Array:
        height, radius = along(points, *lie(x))
        return np.asarray((radius - x[4] - x[5] * height) / np.hypot(1.0, x[5]))

    x = least_squares(off, [0.3, -0.3, 0.01, 0.01, 5.0, 0.0], x_scale=[1, 1, 0.01, 0.01, 1, 0.1], loss="soft_l1",
                      f_scale=0.01, xtol=1e-12, ftol=1e-12).x  # fmt: skip
    return *lie(x), float(x[4]), float(x[5])


def ball(points: Array, start: Array) -> tuple[Array, float]:
    """Centre and radius of the ball nearest the points."""
    x = least_squares(lambda x: np.linalg.norm(points - x[:3], axis=1) - x[3], [*(start + 0.5), 9.0], loss="soft_l1",
                      f_scale=0.01, xtol=1e-12, ftol=1e-12).x  # fmt: skip
    return x[:3], float(x[3])


def holds_the_cone(points: Array, row: dict[str, Any], large: float, small: float) -> None:
    """Axis at both ends and both radii within WITHIN_MM."""
    base, axis, length = np.array(row["base_mm"]), np.array(row["axis"]), row["length_mm"]
    at, way, radius, slope = cone(points, base, axis)
    for height, wanted in ((0.0, large), (length, small)):
        true = base + height * axis
        shift = (true - at) @ way
        assert np.linalg.norm(at + shift * way - true) < WITHIN_MM
        assert radius + slope * shift == pytest.approx(wanted, abs=WITHIN_MM)


def test_the_taper_is_where_its_datum_says(tmp_path: Path) -> None:
    points, rows, params = written("hip_stem", tmp_path, size=7)
    row = rows["taper 12/14"]
    height, radius = along(points, row["base_mm"], row["axis"])
    side = (height > 0.8) & (height < row["length_mm"] - 0.3) & (radius > 5.0) & (radius < 9.0)
    assert side.sum() > 300
    stock = row["stock_radius_mm"]
    assert stock == params.taper_stock_mm
    holds_the_cone(points[side], row, row["large_diameter_mm"] / 2 + stock, row["small_diameter_mm"] / 2 + stock)
    assert height.max() == pytest.approx(row["length_mm"] + row["stock_length_mm"], abs=WITHIN_MM)


def test_the_liner_bore_is_where_its_datums_say(tmp_path: Path) -> None:
    points, rows, params = written("hip_cup", tmp_path, size=54, screw_holes=False)
    bore, seat = rows["liner bore"], rows["liner taper"]
    height, radius = along(points, bore["center_mm"], bore["axis"])
    far = np.hypot(height, radius)
    inner = (far < bore["diameter_mm"] / 2) & (height < -bore["below_rim_mm"] - 0.5) & (radius > 4.5)
    assert inner.sum() > 300
    centre, found = ball(points[inner & (far > bore["diameter_mm"] / 2 - 1.5)], np.array(bore["center_mm"]))
    assert np.linalg.norm(centre - bore["center_mm"]) < WITHIN_MM
    assert found == pytest.approx(bore["diameter_mm"] / 2 - bore["stock_radius_mm"], abs=WITHIN_MM)
    wall = (height > -seat["length_mm"] + 0.5) & (height < -0.2) & (far < bore["diameter_mm"] / 2 + 0.4)
    lean = seat["stock_radius_mm"] / np.cos(np.radians(seat["included_angle_deg"] / 2))
    # the base of this cone is its narrow end, at the ball
    holds_the_cone(points[wall], seat, seat["small_diameter_mm"] / 2 - lean, seat["large_diameter_mm"] / 2 - lean)
    rim = rows["rim face"]
    assert height.max() == pytest.approx(rim["stock_length_mm"], abs=WITHIN_MM)
    assert seat["stock_radius_mm"] == params.bore_stock_mm


def test_the_keel_is_where_its_datum_says(tmp_path: Path) -> None:
    points, rows, _ = written("knee_tibial", tmp_path, fixation="stem")
    row = rows["keel axis"]
    axis, top, tip = (np.array(row[name]) for name in ("axis", "top_mm", "tip_mm"))
    thin, long = row["tip_diameter_mm"] / 2, float(np.linalg.norm(tip - top))
    height, radius = along(points, top, axis)
    shaft = (height > 6.0) & (height < long - 1.0) & (radius < 9.0)
    assert shaft.sum() > 40
    at, way, _, _ = cone(points[shaft], top, axis)
    for true in (top, tip):
        assert np.linalg.norm(at + ((true - at) @ way) * way - true) < WITHIN_MM
    centre, found = ball(points[(height > long + 0.5) & (radius < 5.0)], tip)
    assert np.linalg.norm(centre - tip) < WITHIN_MM
    assert found == pytest.approx(thin, abs=WITHIN_MM)
    assert height.max() == pytest.approx(long + thin, abs=WITHIN_MM)


def test_manifest_and_3mf_carry_the_same_datums() -> None:
    implant = implants.one("hip_cup")
    params = implant.Params(size=50)
    assert implant.blank is not None
    rows = implant.design(implant.blank("left", params), params).machined
    assert json.loads(outputs.datums(rows)) == json.loads(json_text(list(rows)))
    assert {"liner bore", "liner taper", "rim face"} <= {row["name"] for row in rows}
