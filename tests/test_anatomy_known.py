"""Which bones are known as hips and which are not, and landmarks that hold still when their mesh is made anew."""

from __future__ import annotations

import drawn_bones
import fast_simplification
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_anatomy_doors import vault

from implantforge.core import AnatomyError, Array, InputError, Mesh, Pose
from implantforge.stages import anatomy
from implantforge.stages.anatomy import sphere
from implantforge.stages.phantoms import bones


def tenth(mesh: Mesh) -> Mesh:
    made = fast_simplification.simplify(mesh.vertices.copy(), mesh.faces.copy(), target_count=len(mesh.faces) // 10)
    return Mesh(*made)


def test_a_hip_far_from_the_model_is_still_a_hip() -> None:
    """The drawn pelvis furthest from the model of fifty: 1.72 mm RMS; its socket is planted."""
    drawn = bones.draw(np.random.default_rng([3049, 1]), 2.0)
    for side in ("left", "right"):
        found = anatomy.examine(f"hip_{side}", drawn.meshes[f"hip_{side}"])
        assert np.linalg.norm(found.at("acetabulum_center") - drawn.femur[side].head) < 0.3
        assert {"asis", "psis", "pubic_tubercle", "ischial_spine"} <= set(found.landmarks)
    with pytest.raises(AnatomyError, match="other side"):
        anatomy.examine("hip_right", drawn.meshes["hip_left"])


def cases() -> list[tuple[str, Mesh]]:
    """What lies no further from a hip than sound hips do, once the model is bent to it with all its modes."""
    hip = drawn_bones.draw(np.random.default_rng(5), "hip", "whole", "left")
    height = hip.mesh.vertices @ hip.up
    middle = float(np.median(height))
    halves = [drawn_bones.cut(hip.mesh, sign * hip.up, sign * middle, True) for sign in (1.0, -1.0)]
    sacra = [drawn_bones.draw(np.random.default_rng(seed), "sacrum", "whole").mesh for seed in (900, 905)]
    return [("upper half", halves[0]), ("lower half", halves[1]), ("sacrum", sacra[0]), ("bent sacrum", sacra[1])]


@pytest.mark.parametrize("number", range(4))
def test_what_is_no_hip(number: int) -> None:
    name, mesh = cases()[number]
    for side in ("left", "right"):
        with pytest.raises(AnatomyError, match=f"hip_{side}: not a hip"):
            anatomy.examine(f"hip_{side}", mesh)
            pytest.fail(name)


@pytest.mark.parametrize(("kind", "seed"), [("hip", 502), ("hip", 506), ("tibia", 502), ("tibia", 503), ("femur", 502)])
def test_a_tenth_of_the_triangles_moves_no_landmark(kind: str, seed: int) -> None:
    """Rims, spines and trochanters where the tip itself goes with the triangles. A drawn hip's socket is no ball: its centre
    may move by what its sigma says."""
    mesh = drawn_bones.draw(np.random.default_rng(seed), kind, "whole", "left").mesh
    many, few = (anatomy.examine(f"{kind}_left", one) for one in (mesh, tenth(mesh)))
    assert set(many.landmarks) == set(few.landmarks)
    for name, mark in many.landmarks.items():
        moved = float(np.linalg.norm(mark.at_mm - few.at(name)))
        assert moved < (mark.sigma_mm if name == "acetabulum_center" else 0.3), (name, moved)


def bowl(radius: float, centre: Array, deep: Array) -> tuple[Array, Array]:
    """Points of the lower half of a ball that lie deepest, and normals that look into it."""
    k = np.arange(6000)
    z, turn = -(k + 0.5) / len(k), k * np.pi * (3.0 - 5.0**0.5)
    ways = np.column_stack([np.cos(turn) * np.sqrt(1 - z * z), np.sin(turn) * np.sqrt(1 - z * z), z])
    own = ways @ deep > 0.3
    return centre + radius * ways[own], -ways[own]


def test_a_socket_of_two_balls_says_how_far_they_lie_apart() -> None:
    up = np.array([0.0, 0.0, 1.0])
    one, n = bowl(20.0, np.zeros(3), -up)
    found = sphere.hollow_sphere(one, n, np.ones(len(one)), np.array([0.5, 0.5, -2.0]), up, 1.0)
    assert np.linalg.norm(found.center_mm) < 0.02 and found.rival_mm == 0.0
    # one half of a ball of 20 mm, the other of 27 that meets it at the bottom
    other, m = bowl(27.0, np.array([0.0, 0.0, 7.0]), -up)
    left, right = one[:, 0] < 0.0, other[:, 0] > 0.0
    both = np.concatenate([one[left], other[right]]), np.concatenate([n[left], m[right]])
    split = sphere.hollow_sphere(both[0], both[1], np.ones(len(both[0])), np.array([0.5, 0.5, 2.0]), up, 1.0)
    assert 1.0 < split.rival_mm < 10.0


def test_a_rounded_rim_does_not_widen_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ball's hollow of 26 mm to 78 deg, its rim rounded by 4 mm; followed up to the rim it is found wide."""
    up, radius, rim, rounding = np.array([0.0, 0.0, 1.0]), 26.0, np.radians(78.0), 4.0
    turn = np.arange(9000) * np.pi * (3.0 - 5.0**0.5)
    across, end = np.column_stack([np.cos(turn), np.sin(turn), 0.0 * turn]), np.array([np.sin(rim), -np.cos(rim)])
    # evenly by area: the ball's zone, then the quarter ring
    height = np.linspace(-1.0, -np.cos(rim), 7000)
    ways = across[:7000] * np.sqrt(1.0 - height**2)[:, None] + height[:, None] * up
    bend = np.linspace(0.0, np.pi / 2.0, 2000)
    flat = -np.cos(bend)[:, None] * end + np.sin(bend)[:, None] * [np.cos(rim), np.sin(rim)]
    ring = (radius + rounding) * end + rounding * flat
    points = np.concatenate([radius * ways, across[7000:] * ring[:, :1] + ring[:, 1:] * up])
    normals = np.concatenate([-ways, across[7000:] * flat[:, :1] + flat[:, 1:] * up])

    def found() -> sphere.Sphere:
        return sphere.hollow_sphere(points, normals, np.ones(len(points)), np.array([0.5, 0.5, -2.0]), up, 1.0)

    assert abs(found().radius_mm - radius) < 0.005 and np.linalg.norm(found().center_mm) < 0.005
    monkeypatch.setattr(sphere, "_clear", lambda points, *_: np.ones(len(points)))
    assert found().radius_mm - radius > 0.02


def test_holes_are_told_and_landmarks_beside_them_are_less_sure() -> None:
    """A hole of 10 mm beside the lateral epicondyle, one in the shaft; and one of 24 mm that takes a landmark away."""
    bone = drawn_bones.draw(np.random.default_rng(601), "femur", "whole", "left")
    whole = anatomy.examine("femur_left", bone.mesh)
    assert not anatomy.flags(whole)
    middle = bone.mesh.vertices[bone.mesh.faces].mean(axis=1)

    def punched(*holes: tuple[Array, float]) -> Mesh:
        gone = np.zeros(len(middle), bool)
        for at, radius in holes:
            gone |= np.linalg.norm(middle - at, axis=1) < radius
        return Mesh(bone.mesh.vertices, bone.mesh.faces[~gone])

    shaft = bone.mesh.vertices[np.linalg.norm(bone.mesh.vertices - whole.frames["shaft"].origin_mm, axis=1).argmin()]
    few = anatomy.examine("femur_left", punched((whole.at("lateral_epicondyle") + 6.0 * bone.up, 5.0), (shaft, 8.0)))
    said = [text for text in anatomy.flags(few) if "open in 2 places" in text]
    assert len(said) == 1 and said[0].endswith("beside one, and less sure: lateral_epicondyle")
    assert few.measures["open_places"] == 2.0 and 15.0 < few.measures["open_largest_mm"] < 40.0
    one, other = (page.landmarks["lateral_epicondyle"] for page in (whole, few))
    assert other.sigma_mm > one.sigma_mm + 0.3
    assert np.linalg.norm(other.at_mm - bone.points["lateral_epicondyle"]) < 2.0 * other.sigma_mm
    assert few.landmarks["medial_epicondyle"].sigma_mm == pytest.approx(one.sigma_mm, abs=0.2)
    lost = anatomy.examine("femur_left", punched((whole.at("lateral_epicondyle"), 12.0)))
    assert "cut off or a hole" in lost.refused["lateral_epicondyle"]


def test_the_frankfort_plane_from_a_persons_points() -> None:
    """Ears and eyes planted on a vault in one plane, in any pose; what cannot be is refused."""
    size = np.array([72.0, 92.0, 65.0])

    def on_it(x: float, y: float) -> Array:
        """The point of the vault at a height of -20 with its outline at (x, y) direction."""
        share = np.sqrt(1.0 - (20.0 / size[2]) ** 2) / np.hypot(x / size[0], y / size[1])
        return np.array([share * x, share * y, -20.0])

    planted = {"skull.porion_left": on_it(60.0, 10.0), "skull.porion_right": on_it(-60.0, 10.0),
               "skull.orbitale_left": on_it(30.0, -80.0), "skull.orbitale_right": on_it(-30.0, -80.0)}  # fmt: skip
    for seed in (0, 1):
        pose = Pose(Rotation.random(random_state=seed).as_matrix(), np.array([30.0, -200.0, 900.0]))
        mesh = vault().moved(pose)
        given = {name: pose.apply(at) for name, at in planted.items()}
        found = anatomy.examine_all({"skull": mesh}, given)["skull"]
        assert np.allclose(found.frames["frankfort"].rotation, pose.rotation, atol=1e-6)
        assert found.measures["porions_uneven_mm"] < 0.2 and not found.refused
        assert all(mark.method == "corrected by hand" and mark.sigma_mm > 3.0 for mark in found.landmarks.values())
    few = {name: at for name, at in given.items() if "porion" in name}
    page = anatomy.examine("skull", mesh, None, few)
    assert page.refused["frankfort"].endswith("(missing: an orbitale)") and set(page.landmarks) == {
        "porion_left",
        "porion_right",
    }
    assert "give porion_left" in anatomy.examine("skull", mesh).refused["frankfort"]
    swapped = {f"skull.{part}_{side}": given[f"skull.{part}_{other}"] for part in ("porion", "orbitale")
               for side, other in (("left", "right"), ("right", "left"))}  # fmt: skip
    ear, eye = given["skull.porion_left"], given["skull.orbitale_left"]
    wrong: tuple[tuple[dict[str, Array], str], ...] = (
        (swapped, "swapped"),
        ({**given, "skull.nose": eye}, "no landmark nose"),
        ({**given, "skull.porion_left": ear + pose.rotation[:, 0] * 20.0}, "off the bone's surface"),
        ({**given, "skull.porion_left": eye}, "mirror image"),
    )
    for points, why in wrong:
        with pytest.raises(InputError, match=why):
            anatomy.examine("skull", mesh, None, points)
