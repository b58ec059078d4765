"""Which way up, does it fit, where does the metal go: against numbers worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from implantforge.core import InputError, Mesh, Pose
from implantforge.geom import meshing, shapes
from implantforge.stages import orient, printability

UP = np.array([0.0, 0.0, 1.0])
CUBE = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
CUBE_FACES = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6],
                       [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]])  # fmt: skip


def box(x: float, y: float, z: float) -> Mesh:
    return Mesh(CUBE * [x, y, z], CUBE_FACES)


def about_x(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1.0, 0, 0], [0, c, -s], [0, s, c]])


def test_cube_on_its_edge_stands_free_at_45_and_not_at_44_degrees():
    for turn, overhang in ((45.0, False), (44.0, True)):
        cube = box(10, 10, 10).moved(Pose(about_x(turn)))
        area = orient.measure(cube, UP)["overhang_area_mm2"]
        assert (area > 1.0) == overhang, turn


def test_sphere_overhang_is_its_cap():
    ball = meshing.polygonise(shapes.sphere([0.0, 0.0, 0.0], 10.0), 0.25)
    area = orient.measure(ball, UP)["overhang_area_mm2"]
    assert area == pytest.approx(2 * np.pi * 100 * (1 - np.cos(np.pi / 4)), rel=0.01)


def test_a_mushroom_is_not_built_on_its_foot():
    stem, cap = shapes.cylinder([0.0, 0, 0], [0.0, 0, 30.0], 4.0), shapes.cylinder([0.0, 0, 28.0], [0.0, 0, 34.0], 15.0)
    body = meshing.polygonise(stem | cap, 0.7)
    way, numbers = orient.choose(body)
    foot, head = orient.measure(body, UP), orient.measure(body, -UP)
    assert numbers["overhang_area_mm2"] <= min(foot["overhang_area_mm2"], head["overhang_area_mm2"])
    assert numbers["support_volume_mm3"] < foot["support_volume_mm3"] and way @ UP < 0.0


def test_porous_faces_are_kept_off_support():
    body = box(20, 20, 20)
    middle = body.vertices[body.faces].mean(axis=1)
    for axis in range(3):
        clear = middle[:, axis] < 1e-9
        way, numbers = orient.choose(body, keep_clear=clear)
        assert numbers["support_on_clear_mm2"] == 0.0 and -way[axis] < 0.99


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_the_choice_turns_with_the_part(seed):
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    pose = Pose(turn, rng.uniform(-500, 500, 3))
    body = box(10, 25, 70)
    _, still = orient.choose(body, axes=np.eye(3))
    _, turned = orient.choose(body.moved(pose), axes=turn.T)
    assert turned["overhang_area_mm2"] <= still["overhang_area_mm2"] * 1.2 + 1e-6
    assert np.array_equal(
        orient.choose(body.moved(pose), axes=turn.T)[0], orient.choose(body.moved(pose), axes=turn.T)[0]
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_build_pose_is_rigid_and_on_the_plate(seed):
    rng = np.random.default_rng(seed)
    way = rng.normal(size=3)
    way /= np.linalg.norm(way)
    body = box(10, 25, 70).moved(Pose(about_x(rng.uniform(0, 360)), rng.uniform(-900, 900, 3)))
    pose = orient.build_pose(body, way)
    placed = body.moved(pose)
    assert pose.rotation @ way == pytest.approx(UP, abs=1e-9)
    assert placed.vertices.min(axis=0) == pytest.approx([0, 0, 0], abs=1e-9)
    size = np.ptp(placed.vertices, axis=0)
    assert size[0] >= size[1] - 1e-9 and placed.volume_mm3 == pytest.approx(body.volume_mm3)


@pytest.mark.parametrize("way", [UP, -UP, np.array([1.0, 0, 0])])
def test_build_pose_along_the_axes(way):
    assert orient.build_pose(box(1, 2, 3), way).rotation @ way == pytest.approx(UP, abs=1e-12)


def test_icosphere_is_even():
    points = orient._icosphere()
    gap = np.linalg.norm(points[:, None] - points[None], axis=2) + 9 * np.eye(len(points))
    assert len(points) == 162 and gap.min(axis=1).max() < 1.2 * gap.min()


# printability


def clearance(body: Mesh, name: str, margin_mm: float | None = None) -> float:
    on = printability.machine(name)
    return printability.plate_clearance_mm(
        body, on if margin_mm is None else dataclasses.replace(on, margin_mm=margin_mm)
    )


def test_round_plate_takes_the_hull_not_the_box():
    assert clearance(box(80, 80, 10), "EOS M 100", 0.0) == pytest.approx(50 - 80 / np.sqrt(2))
    assert clearance(box(70, 70, 10), "EOS M 100", 0.5) > 0 > clearance(box(70, 70, 10), "EOS M 100", 0.6)


def test_rectangular_plate_allows_any_turn():
    plank = box(300, 5, 5)
    assert clearance(plank, "EOS M 290") > 0
    assert clearance(box(360, 5, 5), "EOS M 290") < 0
    turned = plank.moved(Pose(np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])))
    assert clearance(turned, "EOS M 290") == pytest.approx(clearance(plank, "EOS M 290"), abs=0.3)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 60))
def test_smallest_circle_holds_all_and_cannot_shrink(seed, count):
    points = np.random.default_rng(seed).normal(size=(count, 2)) * [3, 1]
    radius = printability.enclosing_radius_mm(points)
    axes = [np.linspace(low, high, 81) for low, high in zip(points.min(axis=0), points.max(axis=0))]
    grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    best = min(np.linalg.norm(points - c, axis=1).max() for c in grid)
    step = np.hypot(*(axis[1] - axis[0] for axis in axes))
    assert radius <= best + 1e-9 and best - radius < step
    assert radius >= np.linalg.norm(points[:, None] - points[None], axis=2).max() / 2 - 1e-9


def rows(body: Mesh, name: str = "EOS M 290", found: printability.Measured | None = None) -> dict:
    return {row.name: row for row in printability.checks(body, body, printability.machine(name), found)}


def test_too_large_for_every_machine_names_the_axis():
    for name in printability.MACHINES:
        wide, tall = rows(box(400, 400, 10), name), rows(box(10, 10, 500), name)
        assert not wide["plate_clearance_mm"].passed and wide["build_height_mm"].passed
        assert tall["plate_clearance_mm"].passed and not tall["build_height_mm"].passed


def test_open_doubled_and_loose_surfaces_fail():
    cube = box(10, 10, 10)
    assert rows(cube)["open_or_doubled_edges"].passed and rows(cube)["bodies"].passed
    assert rows(Mesh(cube.vertices, cube.faces[1:]))["open_or_doubled_edges"].value > 0
    two = Mesh(np.vstack([cube.vertices, cube.vertices + 20]), np.vstack([CUBE_FACES, CUBE_FACES + 8]))
    assert rows(two)["bodies"].value == 2 and not rows(two)["bodies"].passed


def test_a_table_has_four_islands():
    legs = [shapes.box([x, y, 5.0], [2.0, 2.0, 10.0]) for x in (-8.0, 8.0) for y in (-8.0, 8.0)]
    table = shapes.box([0.0, 0.0, 11.0], [20.0, 20.0, 3.0])
    for leg in legs:
        table = table | leg
    assert rows(meshing.polygonise(table, 0.5))["islands"].value == 4
    assert rows(box(5, 5, 5))["islands"].passed


def test_measured_values_are_judged_by_the_process():
    found = printability.Measured(min_wall_mm=0.4, trapped_powder_mm3=0.2, support_on_porous_mm2=9.0, throat_um=300.0)
    laser, beam = rows(box(9, 9, 9), found=found), rows(box(9, 9, 9), "Arcam Spectra L", found)
    assert laser["lattice_wall_mm"].passed and not beam["lattice_wall_mm"].passed
    assert laser["lattice_throat_um"].passed and not beam["lattice_throat_um"].passed
    assert not laser["trapped_powder_mm3"].passed
    assert not laser["support_on_porous_mm2"].passed and laser["support_on_porous_mm2"].severity == "flag"
    assert "min_wall_mm" not in rows(box(9, 9, 9))
    assert all(row.source for row in laser.values())


def test_waste_of_the_worked_stem():
    metal = printability.material("Ti-6Al-4V ELI")
    gram = 1000.0 / metal.density_g_cm3
    expected = {0.01: (1.0, 16.1, 1.19), 0.03: (2.9, 17.7, 1.22), 0.05: (4.8, 19.3, 1.24)}
    for loss, (process, total, fly) in expected.items():
        found = printability.waste(129.6 * gram, 240 * gram, dataclasses.replace(metal, powder_loss=loss),
                                   stock_mm3=9.6 * gram, support_mm3=12 * gram)  # fmt: skip
        assert found["net_mass_g"] == pytest.approx(120.0)
        assert found["process_powder_loss_pct"] == pytest.approx(process, rel=0.02)
        assert found["am_waste_total_pct"] == pytest.approx(total, rel=0.01)
        assert found["am_buy_to_fly"] == pytest.approx(fly, rel=0.01)
        assert found["mass_saving_pct"] == pytest.approx(46.0)


def test_milled_stem_from_bar():
    metal = printability.material("Ti-6Al-4V ELI")
    solid = 120.0 * 1000.0 / metal.density_g_cm3
    found = printability.waste(solid, solid, metal, box_mm=(45.0, 25.0, 145.0))
    assert found["milled_billet_mass_g"] == pytest.approx(1063, rel=0.01)
    assert found["milled_buy_to_fly"] == pytest.approx(8.9, rel=0.01)
    assert found["milled_waste_pct"] == pytest.approx(88.7, rel=0.01)


def test_build_time_of_the_worked_stem():
    on = printability.machine("EOS M 290")
    assert printability.build_hours(150.0, 35_000.0, on) == pytest.approx(15.8, rel=0.01)
    fast = dataclasses.replace(on, layer_um=60.0, rate_cm3_h=30.0)
    assert printability.build_hours(150.0, 35_000.0, fast) == pytest.approx(8.1, rel=0.01)


def test_unknown_machine_and_material_name_the_nearest():
    with pytest.raises(InputError, match="nearest is EOS M 290"):
        printability.machine("EOS M290")
    with pytest.raises(InputError, match="nearest is Ti-6Al-4V ELI"):
        printability.material("Ti6Al4V ELI")


def test_every_check_can_be_listed():
    listed = {row.name for row in printability.example_checks()}
    assert {"lattice_wall_mm", "plate_clearance_mm", "trapped_powder_mm3", "overhang_share_pct"} <= listed
