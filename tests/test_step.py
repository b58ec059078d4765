"""STEP of the solid templates against the field that the mesh is made of, read back and cut into triangles by the CAD
library, and what is said without that library."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from implantforge.cli import main
from implantforge.core import Array, Fit, GeometryError, Mesh, Pose
from implantforge.geom import meshing, nearby, shapes
from implantforge.implants import hip_stem
from implantforge.pipeline import drawing
from implantforge.pipeline import recipe as recipes
from implantforge.stages.cad import skin, turned

WITHIN_MM = 0.02


def test_outline_of_a_bored_ball_is_arcs_and_lines() -> None:
    ball = shapes.sphere([0.0, 0.0, 2.0], 10.0) - shapes.cylinder([0.0, 0.0, 0.0], [0.0, 0.0, 30.0], 4.0)
    pieces = turned.outline(lambda p: ball(np.stack([p[:, 0], 0 * p[:, 0], p[:, 1]], axis=1)), 12.0, -12.0, 14.0)
    assert sorted(piece.kind for piece in pieces) == ["arc", "line", "line", "line"]
    for a, b in zip(pieces, (*pieces[1:], pieces[0])):
        assert a.points[-1] == pytest.approx(b.points[0], abs=1e-12)
    corners = np.array([piece.points[0] for piece in pieces])
    true = np.array([[4.0, 0.0], [4.0, 2.0 + 84.0**0.5], [0.0, 0.0], [0.0, -8.0]])
    assert np.linalg.norm(corners[:, None] - true, axis=2).min(axis=0) == pytest.approx(0.0, abs=2e-4)
    arc = next(piece for piece in pieces if piece.kind == "arc")
    assert np.linalg.norm(arc.points - [0.0, 2.0], axis=1) == pytest.approx(10.0, abs=1e-4)


def test_two_turned_bodies_are_not_one_outline() -> None:
    two = shapes.sphere([0.0, 0.0, -6.0], 2.0) | shapes.sphere([0.0, 0.0, 6.0], 2.0)
    with pytest.raises(GeometryError, match="2 outlines"):
        turned.outline(lambda p: two(np.stack([p[:, 0], 0 * p[:, 0], p[:, 1]], axis=1)), 9.0, -9.0, 9.0)


@pytest.fixture(scope="module")
def stem() -> tuple[Fit, hip_stem.StemParams]:
    params = hip_stem.StemParams(size=8)
    return hip_stem.blank("left", params), params


def test_skin_of_a_stem_lies_on_its_surface_between_its_points_too(stem: tuple[Fit, Any]) -> None:
    from scipy.interpolate import BSpline

    field, spine = hip_stem.design(*stem).envelope, hip_stem.spine(*stem)
    rows = skin.points(field, spine)
    poles, around, along = skin.spline(rows)
    u, v = np.linspace(0.0, around[-1], 3 * skin.AROUND + 1), np.linspace(0.0, along[-1], 4 * len(rows))
    across = BSpline(along, np.swapaxes(poles, 0, 1), 3)(v)
    at = np.swapaxes(BSpline(around, np.swapaxes(across, 0, 1), 3)(u), 0, 1)
    assert np.abs(field(at.reshape(-1, 3))).max() < WITHIN_MM
    ring = at[-1] - spine.neck_mm
    assert np.linalg.norm(ring, axis=1) == pytest.approx(spine.ring_radius_mm, abs=1e-5)
    assert ring @ spine.axis == pytest.approx(0.0, abs=1e-6)


def test_a_neck_thicker_than_the_body_is_no_skin() -> None:
    """The thinnest wedge is 8 mm deep, its neck 12.4: refused for that, at that height, not for a collar it has not."""
    params = hip_stem.StemParams(family="taper wedge", size=1)
    fit = hip_stem.blank("left", params)
    with pytest.raises(
        GeometryError, match=r"at z = -13\.\d to -1\d\.\d mm .* a neck thicker than the body.* a larger size"
    ):
        skin.points(hip_stem.design(fit, params).envelope, hip_stem.spine(fit, params))
    larger = params.model_copy(update={"size": 2})
    fit = hip_stem.blank("left", larger)
    skin.points(hip_stem.design(fit, larger).envelope, hip_stem.spine(fit, larger))


def test_a_collar_is_no_skin(stem: tuple[Fit, Any]) -> None:
    params = hip_stem.StemParams(size=8, collar=True)
    with pytest.raises(GeometryError, match="collar"):
        skin.points(hip_stem.design(stem[0], params).envelope, hip_stem.spine(stem[0], params), 64)


def test_without_the_extra_one_line_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "build123d", None)
    with pytest.raises(SystemExit) as ended:
        main(["template", "hip_cup", "--out", str(tmp_path / "cup.step")])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "pip install '.[cad]' in a clone" in said
    assert not list(tmp_path.iterdir())


def solid_of(path: Path) -> Any:
    bd = pytest.importorskip("build123d", reason="the optional extra cad is not installed")
    found = bd.import_step(str(path)).solids()
    assert len(found) == 1 and found[0].is_valid
    return found[0]


def vertices(points: Array) -> list[Any]:
    bd = pytest.importorskip("build123d")
    return [bd.Vertex(*map(float, at)) for at in points]


def triangles(solid: Any) -> Mesh:
    """Corners on the STEP's own faces; chords 0.01 mm at most on a radius of 30 mm."""
    corners, faces = solid.tessellate(0.002, 0.05)
    return Mesh(np.array([tuple(at) for at in corners]), np.array(faces))


def settled(field: Any, points: Array) -> Array:
    """Vertices of a mesh moved onto its field's zero, so that the meshing's own error is not counted."""
    step = 1e-3 * np.eye(3)
    for _ in range(4):
        slope = np.stack([(field(points + d) - field(points - d)) / 2e-3 for d in step], axis=1)
        points = points - (field(points) / np.maximum((slope**2).sum(axis=1), 0.1))[:, None] * slope
    return np.asarray(points[np.abs(field(points)) < 1e-4])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("hip_cup", ["params.rim_fins=true"]),
        ("hip_cup", ["params.elliptic_mm=1.0"]),
        ("knee_tibial", []),
        ("knee_tibial", ["params.fixation='pegs'"]),
        ("hip_stem", []),
        ("hip_stem", ["params.family='short'", "params.neck='lateral'"]),
    ],
)
def test_step_and_field_are_one_shape(name: str, settings: list[str], tmp_path: Path) -> None:
    """Both ways: corners of the STEP's triangles lie on the field, and the meshed field lies on the STEP, within 0.02 mm:
    the 40 points that are farthest from the triangles, measured to the faces themselves."""
    pytest.importorskip("build123d", reason="the optional extra cad is not installed")
    out = tmp_path / "x.step"
    drawing.of_size(name, out, settings=settings)
    found = recipes.load(name, settings)
    field = found.implant.design(found.implant.blank("left", found.params), found.params).envelope  # type: ignore[union-attr,misc]
    solid = solid_of(out)
    mesh = triangles(solid)
    off = np.abs(field(mesh.vertices))
    points = settled(field, meshing.polygonise(field, 0.3).vertices)
    worst = points[np.argsort(-nearby.distance_within(points, mesh, 0.5))[:40]]
    skin_ = solid.shells()[0]
    far = np.array([skin_.distance_to(vertex) for vertex in vertices(worst)])
    print(f"{name} {settings}: STEP to field {off.max():.4f} mm, field to STEP {far.max():.4f} mm")
    assert off.max() < WITHIN_MM
    assert far.max() < WITHIN_MM


def test_equal_templates_are_equal_bytes_and_a_right_cup_is_no_left_one(tmp_path: Path) -> None:
    pytest.importorskip("build123d", reason="the optional extra cad is not installed")
    for file, side in (("a", "left"), ("b", "left"), ("c", "right")):
        drawing.of_size("hip_cup", tmp_path / file / "x.step", side=side)  # type: ignore[arg-type]
    a, b, c = ((tmp_path / file / "x.step").read_bytes() for file in "abc")
    assert a == b != c


def test_a_part_lies_where_it_was_planned(tmp_path: Path) -> None:
    pytest.importorskip("build123d", reason="the optional extra cad is not installed")
    from implantforge.pipeline.run import json_text

    turn = Pose(np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]), np.array([100.0, -40.0, 7.0]))
    found = recipes.load("knee_tibial", ["params.fixation='pegs'"])
    fit = found.implant.blank("left", found.params)  # type: ignore[union-attr,misc]
    page = {"side": "left", "implant": fit.implant, "params": fit.params, "metrics": {},
            "pose": {"rotation": turn.rotation, "origin_mm": turn.origin_mm}}  # fmt: skip
    (tmp_path / "fit.json").write_text(json_text(page))
    (tmp_path / "recipe.toml").write_text(found.toml())
    drawing.of_run(tmp_path, tmp_path / "x.step")
    at = turn.inverse_apply(triangles(solid_of(tmp_path / "x.step")).vertices)
    assert np.abs(found.implant.design(fit, found.params).envelope(at)).max() < WITHIN_MM  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["knee_femoral"], "no sizes of its own"),
        (["hip_total"], "made of stem, cup"),
        (["hip_stem", "--set", "params.collar=true"], "collar"),
        (["hip_cup", "--size", "45"], "size = 45 is none of 44"),
        (["hip_cup", "--out", "x.stl"], "must end in .step"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("build123d", reason="the optional extra cad is not installed")
    out = [] if "--out" in words else ["--out", str(tmp_path / "x.step")]
    with pytest.raises(SystemExit) as ended:
        main(["template", *words, *out])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
