"""A maker's own cup and tray: the parametric ones written as meshes must be planned where the parametric ones are."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import drawn_knees
import makers
import numpy as np
import pytest
import test_hip_cup as bowls

from implantforge.cli import main
from implantforge.core import Fit, FitError, InputError, Mesh, Pose
from implantforge.geom import measure, meshing, shapes
from implantforge.implants import Case, hip_cup, knee_tibial, own_cup, own_tray
from implantforge.stages import templates


class Placed(NamedTuple):
    """Case, our own plan, the folder of it and its neighbours as meshes, the plan of those, its parameters."""

    case: Case
    ours: Fit
    folder: Path
    fit: Fit
    params: Any


OURS, CUP, TRAY = hip_cup.CupParams(), own_cup.IMPLANT, own_tray.IMPLANT


@pytest.fixture(scope="module")
def cup(tmp_path_factory: pytest.TempPathFactory) -> Placed:
    case, ours = bowls.planned()
    rows = []
    for size in (50, 52, 54):
        fit = replace(ours, params={**ours.params, "size": size})
        rows.append((size, hip_cup.design(fit, OURS).envelope, {"outer_mm": float(size)}))
    folder = makers.folder(tmp_path_factory.mktemp("cups"), "cup", rows)
    params = own_cup.resolve(own_cup.OwnCupParams(template=str(folder)))
    return Placed(case, ours, folder, own_cup.plan(case, params), params)


@pytest.fixture(scope="module")
def tray(tmp_path_factory: pytest.TempPathFactory) -> Placed:
    side, meshes, truth = drawn_knees.draw(2)
    case = drawn_knees.case(side, meshes, drawn_knees.pages(side, truth))
    ours = knee_tibial.plan(case, knee_tibial.TibialParams())
    rows = []
    for number, step in enumerate((-3, 0, 3), start=1):
        width = ours.params["ml_mm"] + step
        fit = replace(ours, params={**ours.params, "ml_mm": width})
        rows.append((number, knee_tibial.design(fit, knee_tibial.TibialParams()).envelope, {"side": side}))
    folder = makers.folder(tmp_path_factory.mktemp("trays"), "tray", rows)
    params = own_tray.resolve(own_tray.OwnTrayParams(template=str(folder)))
    return Placed(case, ours, folder, own_tray.plan(case, params), params)


def between_deg(a: Pose, b: Pose) -> float:
    return float(np.degrees(np.arccos(np.clip((np.trace(a.rotation.T @ b.rotation) - 1) / 2, -1.0, 1.0))))


def test_the_same_cup_is_found_at_the_same_place(cup: Placed) -> None:
    _, ours, _, fit, _ = cup
    assert fit.params["size"] == ours.params["size"] == 52
    assert fit.pose.origin_mm == pytest.approx(ours.pose.origin_mm, abs=1e-9)
    assert fit.pose.rotation == pytest.approx(ours.pose.rotation, abs=1e-9)
    for name in ("coverage_pct", "bone_left_medial_mm", "size_probability_pct", "press_fit_pct"):
        assert fit.metrics[name] == pytest.approx(ours.metrics[name])
    assert {row["size"] for row in fit.alternatives} == {50, 52, 54}


def test_the_same_tray_is_found_at_the_same_place(tray: Placed) -> None:
    _, ours, _, fit, _ = tray
    assert fit.metrics["size"] == 2 and fit.metrics["width_mm"] == fit.params["ml_mm"]
    assert fit.params["size"] == "2" and fit.params["ml_mm"] == pytest.approx(ours.params["ml_mm"], abs=0.05)
    assert np.linalg.norm(fit.pose.origin_mm - ours.pose.origin_mm) < 0.3
    assert between_deg(fit.pose, ours.pose) < 0.01
    for name, within in (
        ("overhang_mm", 0.15),
        ("coverage_pct", 0.5),
        ("keel_clear_mm", 0.5),
        ("keel_length_mm", 0.05),
    ):
        assert fit.metrics[name] == pytest.approx(ours.metrics[name], abs=within), name
    assert fit.reason.startswith("size 2 (") and "the largest that hangs over by at most 1 mm" in fit.reason


@pytest.mark.parametrize("which", ["cup", "tray"])
def test_its_part_is_the_makers_shape_closed_and_checked(which: str, request: pytest.FixtureRequest) -> None:
    _, _, folder, fit, _ = request.getfixturevalue(which)
    implant = CUP if which == "cup" else TRAY
    _, mesh, rows = made_of(implant, request.getfixturevalue(which))
    assert measure.is_manifold(mesh) and measure.manifold_status(mesh) == "NoError"
    given = templates.read(folder, which).for_side("left", int(fit.params["size"]))[0].mesh
    assert mesh.volume_mm3 == pytest.approx(given.volume_mm3, rel=0.005)
    for row in rows:
        assert row.source.strip() and row.unit
        assert row.passed or row.severity == "flag", f"{row.name} {row.value} {row.unit}"
    names = {row.name for row in rows}
    assert {"beyond_template_mm", "machining_stock_mm", "bone_overlap_mm3"} <= names
    assert which == "tray" or {"inclination_error_deg", "anteversion_error_deg"} <= names


def test_a_cups_coat_lies_on_its_dome_alone(cup: Placed) -> None:
    params = cup.params
    made, _, rows = made_of(CUP, cup)
    layer = meshing.polygonise(made.porous, 0.4).vertices
    away = np.linalg.norm(layer, axis=1)
    assert away.min() > 26.0 - params.coat_depth_mm - 0.05 and away.max() < 26.05
    assert layer[:, 2].max() < -2.95
    wall = next(row for row in rows if row.name == "wall_under_coat_mm")
    r = hip_cup.shell(52, OURS)
    assert wall.value == pytest.approx(26.0 - params.coat_depth_mm - (r.bore - OURS.bore_stock_mm), abs=0.15)


def test_a_trays_coat_spares_rim_and_keel(tray: Placed) -> None:
    *_, fit, params = tray
    made, _, rows = made_of(TRAY, tray)
    layer = meshing.polygonise(made.porous, 0.4).vertices
    assert layer[:, 2].min() > -0.02 and layer[:, 2].max() < params.coat_depth_mm + 0.02
    out = knee_tibial.outline_field(fit.params["ml_mm"], 1.0)
    assert out(layer).max() < -0.85
    keel = knee_tibial._fixation(fit.params["ml_mm"], fit.params["keel_length_mm"], 1.0, knee_tibial.TibialParams())
    flat = np.column_stack([layer[:, :2], np.full(len(layer), -own_tray.UNDER_MM)])
    assert keel(flat).min() > 0.6 and np.percentile(keel(flat), 0.1) > 0.9  # a corner of the coat's mesh is cut
    share = measure_area(layer, out)
    assert share > 0.7
    plate = next(row for row in rows if row.name == "tray_mm")
    defaults = knee_tibial.TibialParams()
    whole = defaults.tray_mm + defaults.coat_mm + defaults.rim_stock_mm
    assert plate.value == pytest.approx(whole - params.coat_depth_mm, abs=0.1)


def measure_area(layer: np.ndarray, out: Any) -> float:
    """Share of the plate's underside that lies within 0.6 mm of the coat."""
    from scipy.spatial import cKDTree

    x, y = np.meshgrid(np.arange(-45.0, 45.0), np.arange(-35.0, 35.0), indexing="ij")
    at = np.column_stack([x.ravel(), y.ravel(), np.full(x.size, 0.6)])
    at = at[out(at) < 0]
    near = cKDTree(layer).query(at)[0] < 0.9
    return float(near.mean())


@cache
def made_of(implant: Any, placed: Placed) -> tuple[Any, Mesh, tuple[Any, ...]]:
    """Design, outer mesh in its own axes and checks."""
    case, _, _, fit, params = placed
    made = implant.design(fit, params)
    mesh = meshing.polygonise(made.envelope, 0.7)
    return made, mesh, implant.checks(case, fit, made, mesh.moved(fit.pose), params)


def test_a_plates_outline_is_read_where_it_is_widest() -> None:
    """A round plate 70 mm wide, 4 mm thick, its lower edge cut away 2 mm wide and 1 mm high."""
    plate = shapes.cylinder([0.0, 0.0, 0.0], [0.0, 0.0, 4.0], 35.0) - (
        shapes.cylinder([0.0, 0.0, -1.0], [0.0, 0.0, 1.0], 40.0) - shapes.cylinder([0, 0, -2.0], [0, 0, 2.0], 33.0)
    )
    flat = templates.outline(meshing.polygonise(plate, 0.5))
    assert np.linalg.norm(flat, axis=1) == pytest.approx(35.0, abs=0.03)
    turn = np.degrees(np.unwrap(np.arctan2(flat[:, 1], flat[:, 0])))
    assert turn - turn[0] == pytest.approx(np.arange(360.0), abs=1.0)  # anticlockwise, even


def test_what_a_template_has_not_is_said(cup: Placed, tray: Placed) -> None:
    with pytest.raises(InputError, match=r"has no size 60 for the left side \(it has 50, 52, 54\)"):
        own_cup.plan(cup[0], cup[4].model_copy(update={"size": 60}))
    far = replace(tray[0], side="right")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="is made for the left side; this is the right one"):
        own_tray.plan(far, tray[4])
    with pytest.raises(FitError, match=r"own_cup: no size fits hip_left .*-0.3 mm over the socket"):
        own_cup.plan(bowls.case_of(bowls.bowl(54.3, 9.0), 54.3), cup[4])


def test_a_keel_that_leaves_the_bone_is_refused_with_its_size(tray: Placed, tmp_path: Path) -> None:
    case, ours, *_ = tray
    long = shapes.capsule([0.0, 0.0, 2.0], [14.0, 0.0, -70.0], 6.0)
    body = knee_tibial.design(ours, knee_tibial.TibialParams()).envelope | long
    folder = makers.folder(tmp_path, "tray", [(7, body, {})])
    with pytest.raises(FitError, match=r"own_tray: the keel of size 7 leaves tibia_left"):
        own_tray.plan(case, own_tray.OwnTrayParams(template=str(folder)))


def _edit(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "template.toml"
        assert re.search(old, path.read_text())
        path.write_text(re.sub(old, new, path.read_text(), count=1))

    return change


def _ball(folder: Path) -> None:
    from implantforge.stages.export import write_stl

    ball = shapes.sphere(np.zeros(3), 25.0) & shapes.half_space(np.zeros(3), [0.0, 0.0, 1.0])
    write_stl(next(folder.glob("s50*.stl")), meshing.polygonise(ball, 0.8).moved(makers.TURN))


@pytest.mark.parametrize(
    ("which", "spoil", "said"),
    [
        ("cup", _edit("outer_mm = 50.0", "outer_mm = 47.0"), r"row 1\.outer_mm: 12 mm under the origin the dome is 44\.1"),
        ("cup", _edit("outer_mm = 50.0", "outer_mm = 51.5"), r"row 1\.outer_mm: 13 mm under the origin the dome is 42"),
        ("cup", _edit("outer_mm = 50.0", "outer_mm = 48.5"), r"row 1\.outer_mm: 18 mm under the origin the dome is 34"),
        ("cup", _edit("outer_mm = 50.0", "outer_mm = -50.0"), r"sizes\.row 1\.outer_mm: must be 36 or more, got -50"),
        ("cup", _edit("outer_mm = 50.0\n", ""), r"sizes\.row 1\.outer_mm: is missing; every cup needs it"),
        ("cup", _edit(r"up = \[", "up = [-"), r"frame: size 50 reaches from"),
        ("cup", _edit(r"origin = \[100.0", "origin = [103.0"), r"frame: size 50 reaches|under the origin"),
        ("cup", _edit(r"origin = \[100.0, -40.0", "origin = [100.0, -43.0"), r"under the origin"),
        ("cup", _edit("front = ", "medial = "), r"frame\.medial: is no key of a cup's template"),
        ("cup", _edit("to_mm = -3.0", "to_mm = -45.0"), r"coat: from_mm = -40 must lie below to_mm = -45"),
        ("cup", _edit("from_mm = -40.0", "from_mm = -400.0\nto = 3"), r"coat\.to: is no key of a cup's template"),
        ("cup", _edit("-40.0\nto_mm = -3.0", "20.0\nto_mm = 40.0"), r"coat: 20 to 40 mm misses size 50"),
        ("cup", _edit('kind = "cup"', 'kind = "cup"\nunit = "inch"'), r"34-90 mm; check unit \(unit = 'mm' would fit\)"),
        ("cup", _ball, r"size 50 is solid where the liner goes"),
        ("cup", _edit("size = 54", "size = 52"), r"sizes\.row 3: size 52 stands in sizes\.row 2 already"),
        ("tray", _edit(r"up = \[", "up = [-"), r"frame: size 1 reaches from .* the face\s*that meets the bone"),
        ("tray", _edit(r"posterior = .*", "posterior = [0.0, 1.0, 0.0]"), r"frame: the plate of size 1 measures"),
        ("tray", _edit(r"origin = \[100.0", "origin = [103.0"), r"frame: size 1 reaches from"),
        ("tray", _edit(r"\[\[sizes\]\]", "[coat]\nfrom_mm = 0\nto_mm = 1\n[[sizes]]"), r"coat: is no key of a tray"),
        ("tray", _edit('side = "left"', 'side = "up"'), r"sizes\.row 1\.side: .*got 'up'"),
        ("tray", _edit("_left.stl", "_gone.stl"), r"s1_gone.stl is not in"),
        ("tray", _edit("s1_left.stl", "s2_left.stl"), r"sizes\.row 2: file 's2_left.stl' stands in sizes\.row 1 already"),
    ],
)  # fmt: skip
def test_a_bad_template_is_refused_by_name(
    which: str, spoil: Callable[[Path], None], said: str, request: pytest.FixtureRequest, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """At once, before a CT is read, in one line."""
    copy = tmp_path / "maker"
    shutil.copytree(request.getfixturevalue(which)[2], copy)
    spoil(copy)
    with pytest.raises(SystemExit) as ended:
        main(["plan", f"own_{which}", "--set", f"params.template={copy}", "--out", str(tmp_path / "run"), "--quiet"])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("refused: template: ") and err.count("\n") == 1
    assert re.search(said, err), err
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_keel_too_long_is_called_that() -> None:
    plate = shapes.box(np.array([0.0, 0.0, 4.0]), [70.0, 45.0, 8.0])
    for length, said in ((80.0, None), (95.0, r"sizes\.row 1: the keel of size 3 is 95 mm long; 90 mm")):
        keel = shapes.box(np.array([0.0, 0.0, -length / 2.0 + 1.0]), [14.0, 14.0, length + 2.0])
        one = templates.Size(3, "left", meshing.polygonise(plate | keel, 1.0), "sizes.row 1", np.zeros(3))
        if said is None:
            templates.LOOKS["tray"](one, None)  # type: ignore[arg-type]
            continue
        with pytest.raises(InputError, match=said):
            templates.LOOKS["tray"](one, None)  # type: ignore[arg-type]
