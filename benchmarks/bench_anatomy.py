"""Landmarks against raters, published values, and the shape model's own points; what must be refused; times.

    python benchmarks/run.py anatomy            every row
    python benchmarks/bench_anatomy.py 500 0    the drawn bones alone (how many, seed), with every miss named
    python benchmarks/bench_anatomy.py 100 1 bumps    harder ones: bumps, "fewer modes" or children

Drawn bones come from the model that the registration bends, so they test the way to the answer (pose, side, cuts,
refusals), not how far real bones lie from the model: that is what the raters and the published values are for.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from implantforge.core import Mesh
from implantforge.core.errors import ImplantForgeError
from implantforge.stages import anatomy
from implantforge.stages.anatomy import register
from implantforge.stages.anatomy.femur import angle

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data" / "meshes"
sys.path.insert(0, str(ROOT / "tests"))
RATED = {
    "Superior Greater Trochanter (SGT)": "greater_trochanter", "Lesser Trochanter (LT)": "lesser_trochanter",
    "Posterior Lateral Condyle (PLC)": "posterior_lateral_condyle", "Lateral Epicondyle (LEC)": "lateral_epicondyle",
    "Posterior Medial Condyle (PMC)": "posterior_medial_condyle", "Medial Epicondyle (MEC)": "medial_epicondyle",
    "Intercondylar Notch (ICN)": "intercondylar_notch", "Distal Lateral Condyle (DLC)": "distal_lateral_condyle",
    "Distal Medial Condyle (DMC)": "distal_medial_condyle", "ASIS": "asis", "AIIS": "aiis", "PSIS": "psis",
    "Pubic Tubercle (PT)": "pubic_tubercle", "PIIS": "piis", "Ischial Spine (IS)": "ischial_spine",
}  # fmt: skip
"""Raters' landmarks that the program has; head, neck, sacrum and crest points of theirs have no name here."""
HIP_CENTRES = {"m3_left": (89.5, -124.73, -831.56), "m3_right": (-78.27, -122.37, -838.85),
               "m4_left": (78.34, 28.85, -365.2), "m4_right": (-92.6, 18.49, -356.62)}  # fmt: skip
NECK_SHAFT = {"m3_left": 125.0, "m3_right": 123.0, "m4_left": 126.0, "m4_right": 120.0}
HARDER = ("bumps", "fewer modes", "children")
"""25 osteophytes on each bone; a registration with 12 of the model's 25 modes; bones of 0.4 to 0.75 of a grown size."""
AXES = {"epicondylar": ("medial_epicondyle", "lateral_epicondyle"),
        "condylar": ("posterior_medial_condyle", "posterior_lateral_condyle")}  # fmt: skip


def read(path: Path) -> Mesh:
    """A mesh file, equal vertices joined."""
    body: Any = trimesh.load(path, force="mesh")
    body.merge_vertices()
    return Mesh(np.asarray(body.vertices), np.asarray(body.faces))


def real(bone: str, side: str) -> Mesh:
    """A bone of subject z027."""
    path = SHARED / "vsd_z027" / f"{bone}_{side[0].upper()}.stl"
    if not path.exists():
        raise SystemExit(f"anatomy: no {path.name}; this row needs the shared test data beside the project")
    return read(path)


def rated() -> list[tuple[str, float, float]]:
    """(bone.landmark, error mm, limit mm) of every rated landmark: limit is two scatters or 3 mm, whichever is larger."""
    found = {f"hip_{side}": anatomy.examine(f"hip_{side}", real("Hip", side)) for side in ("left", "right")}
    found["femur_left"] = anatomy.examine("femur_left", real("Femur", "left"))
    out = []
    with (SHARED / "vsd_z027" / "landmarks_5_raters.csv").open() as stream:
        for row in csv.DictReader(stream):
            name, bone = row["landmark"], "femur_left"
            if row["bone"] == "Pelvis":
                side, _, name = name.partition(" ")
                bone = f"hip_{side.lower()}"
            if name not in RATED:
                continue
            at = np.array([float(row[f"{axis}_mean"]) for axis in "xyz"])
            mark = found[bone].landmarks.get(RATED[name])
            error = np.inf if mark is None else float(np.linalg.norm(mark.at_mm - at))
            out.append((f"{bone}.{RATED[name]}", error, max(3.0, 2.0 * float(row["inter_rater_sd_mm"]))))
    return out


class Raters:
    """Subject z027 against the mean of five raters."""

    timeout = 600

    def setup(self) -> None:
        real("Hip", "left")

    def track_within_limit_pct(self) -> float:
        return 100.0 * float(np.mean([error <= limit for _, error, limit in rated()]))

    def track_worst_mm(self) -> float:
        return max(error for _, error, _ in rated())


class Sockets:
    """The centre of the acetabulum from the head's, subject z027."""

    params = ("left", "right")
    param_names = ("side",)

    def track_socket_from_head_mm(self, side: str) -> float:
        hip, femur = (
            anatomy.examine(f"hip_{side}", real("Hip", side)),
            anatomy.examine(f"femur_{side}", real("Femur", side)),
        )
        return float(np.linalg.norm(hip.at("acetabulum_center") - femur.at("head_center")))


class Published:
    """Four proximal femora against what libhip published of them. Its centres are those of the smallest ball that encloses
    the head (its notebook 2_BoneAnt; the published radius is the largest distance of the cap from them), not of a fitted
    sphere: of m3, whose heads are out of round, they lie 2.7 and 5.1 mm from any sphere its surface follows. Its angles
    are those of two lines of least squares on the neck and shaft parts of the centreline; the parts are not published."""

    params = tuple(HIP_CENTRES)
    param_names = ("bone",)

    def setup(self, bone: str) -> None:
        subject, _, side = bone.partition("_")
        path = SHARED / "libhip" / f"{subject}_{side[0]}femur_mm.stl"
        if not path.exists():
            raise SystemExit(f"anatomy: no {path.name}; this row needs the shared test data beside the project")
        self.found = anatomy.examine(f"femur_{side}", read(path))

    def track_head_center_mm(self, bone: str) -> float:
        return float(np.linalg.norm(self.found.at("head_center") - HIP_CENTRES[bone]))

    def track_neck_shaft_off_deg(self, bone: str) -> float:
        return self.found.measures["neck_shaft_angle_deg"] - NECK_SHAFT[bone]


def drawn(count: int, seed: int = 0, say: bool = False, how: str = "plain") -> dict[str, float]:
    """Figures of `count` drawn femora, every fifth one spoiled; how: one of HARDER."""
    import drawn_bones

    rng = np.random.default_rng(seed)
    errors: dict[str, list[float]] = {"head": [], "epicondylar": [], "condylar": [], "sigmas": [], "sigmas_cut": []}
    wrong = {"wrong_side": 0, "inverted": 0, "not_refused": 0, "refused_wrongly": 0, "missing": 0}
    spoiled = 0
    for number in range(count):
        if number % 5 == 4:
            words, mesh, name = drawn_bones.spoiled(rng)
            spoiled += 1
            try:
                anatomy.examine(name, mesh)
            except ImplantForgeError:
                continue
            wrong["not_refused"] += 1
            _say(say, f"{number} not refused: {words}")
            continue
        size = float(rng.uniform(0.4, 0.75)) if how == "children" else 1.0
        bone = drawn_bones.draw(rng, bumps=25 if how == "bumps" else 0, size=size)
        label = f"{number} {bone.part} {bone.share:.2f} {bone.side}"
        try:
            found = anatomy.examine(f"femur_{bone.side}", bone.mesh)
        except ImplantForgeError as error:
            wrong["wrong_side" if "other side" in str(error) else "refused_wrongly"] += 1
            _say(say, f"{label} refused: {error}")
            continue
        if found.frames["shaft"].rotation[:, 2] @ bone.up < 0.9:
            wrong["inverted"] += 1
            _say(say, f"{label} inverted")
        _compare(bone, found, errors, wrong, _say if say else lambda *_: None, label)
    within = {f"{name}_within_2_pct": 100.0 * float(np.mean(np.array(errors.pop(name)) <= 2.0))
              for name in ("sigmas", "sigmas_cut")}  # fmt: skip
    out = {f"{name}_{at}": float(np.percentile(values, q)) for name, values in errors.items()
           for at, q in (("median", 50), ("p95", 95), ("worst", 100))}  # fmt: skip
    out |= within | {name: float(value) for name, value in wrong.items()}
    return out | {"bones": float(count), "spoiled": float(spoiled)}


@contextmanager
def modes(count: int | None) -> Iterator[None]:
    """The registration with the first `count` modes only, so that it cannot bend to all that was drawn."""
    whole = register.bone
    cut = {name: whole(name) for name in ("femur", "tibia", "hip", "fibula", "patella", "sacrum")}
    cut = {name: replace(atlas, modes=atlas.modes[:count],
                         marks={key: (at, own[:count]) for key, (at, own) in atlas.marks.items()})
           for name, atlas in cut.items()}  # fmt: skip
    register.bone = cut.__getitem__  # type: ignore[assignment]
    try:
        yield
    finally:
        register.bone = whole


def _say(say: bool, text: str) -> None:
    if say:
        print(text, flush=True)


def _compare(
    bone: Any, found: Any, errors: dict[str, list[float]], wrong: dict[str, int], say: Any, label: str
) -> None:
    marks = found.landmarks
    if "head_center" in marks:
        errors["head"].append(float(np.linalg.norm(marks["head_center"].at_mm - bone.points["head_center"])))
        if errors["head"][-1] > 0.3:
            say(True, f"{label}: head off by {errors['head'][-1]:.2f} mm")
    elif bone.part != "distal":
        wrong["missing"] += 1
        say(True, f"{label}: no head: {found.refused['head_center']}")
    for name, mark in marks.items():
        if name in bone.points and mark.sigma_mm > 0:
            ratio = float(np.linalg.norm(mark.at_mm - bone.points[name])) / mark.sigma_mm
            errors["sigmas" if bone.part == "whole" else "sigmas_cut"].append(ratio)
    for name, (inner, outer) in AXES.items():
        if inner in marks and outer in marks:
            ours, truth = marks[outer].at_mm - marks[inner].at_mm, bone.points[outer] - bone.points[inner]
            errors[name].append(angle(ours, truth))
        elif bone.part != "proximal":
            wrong["missing"] += 1
            say(True, f"{label}: no {name} axis")


class Drawn:
    """500 femora drawn from the shape model, whole and cut, every fifth spoiled."""

    timeout = 3600

    def setup_cache(self) -> dict[str, float]:
        return drawn(500)

    def track_head_median_mm(self, found: dict[str, float]) -> float:
        return found["head_median"]

    def track_head_p95_mm(self, found: dict[str, float]) -> float:
        return found["head_p95"]

    def track_head_worst_mm(self, found: dict[str, float]) -> float:
        return found["head_worst"]

    def track_epicondylar_axis_median_deg(self, found: dict[str, float]) -> float:
        return found["epicondylar_median"]

    def track_epicondylar_axis_p95_deg(self, found: dict[str, float]) -> float:
        return found["epicondylar_p95"]

    def track_condylar_axis_median_deg(self, found: dict[str, float]) -> float:
        return found["condylar_median"]

    def track_condylar_axis_p95_deg(self, found: dict[str, float]) -> float:
        return found["condylar_p95"]

    def track_within_2_sigma_pct(self, found: dict[str, float]) -> float:
        return found["sigmas_within_2_pct"]

    def track_cut_within_2_sigma_pct(self, found: dict[str, float]) -> float:
        return found["sigmas_cut_within_2_pct"]

    def track_wrong_sides(self, found: dict[str, float]) -> float:
        return found["wrong_side"]

    def track_inversions(self, found: dict[str, float]) -> float:
        return found["inverted"]

    def track_spoiled_not_refused(self, found: dict[str, float]) -> float:
        return found["not_refused"]

    def track_sound_refused(self, found: dict[str, float]) -> float:
        return found["refused_wrongly"] + found["missing"]


class Harder:
    """100 femora that the model does not hold, or hardly: heads, axes, sides and refusals."""

    timeout = 3600
    params = HARDER
    param_names = ("how",)

    def setup_cache(self) -> dict[str, dict[str, float]]:
        return {how: harder(100, 1, how) for how in HARDER}

    def track_head_median_mm(self, found: dict[str, dict[str, float]], how: str) -> float:
        return found[how]["head_median"]

    def track_head_p95_mm(self, found: dict[str, dict[str, float]], how: str) -> float:
        return found[how]["head_p95"]

    def track_epicondylar_axis_median_deg(self, found: dict[str, dict[str, float]], how: str) -> float:
        return found[how]["epicondylar_median"]

    def track_epicondylar_axis_p95_deg(self, found: dict[str, dict[str, float]], how: str) -> float:
        return found[how]["epicondylar_p95"]

    def track_condylar_axis_p95_deg(self, found: dict[str, dict[str, float]], how: str) -> float:
        return found[how]["condylar_p95"]

    def track_wrong(self, found: dict[str, dict[str, float]], how: str) -> float:
        return found[how]["wrong_side"] + found[how]["inverted"] + found[how]["not_refused"]

    def track_sound_refused(self, found: dict[str, dict[str, float]], how: str) -> float:
        return found[how]["refused_wrongly"] + found[how]["missing"]

    def track_within_2_sigma_pct(self, found: dict[str, dict[str, float]], how: str) -> float:
        return found[how]["sigmas_within_2_pct"]


def harder(count: int, seed: int, how: str, say: bool = False) -> dict[str, float]:
    """`drawn` in one of the ways of HARDER."""
    with modes(12 if how == "fewer modes" else None):
        return drawn(count, seed, say, how)


def remeshed(kind: str, count: int = 8) -> list[tuple[str, float]]:
    """(landmark, mm it moves) when a mesh is made anew with a tenth of its triangles: of drawn bones from seed 500 on, and
    of both bones of subject z027. A drawn socket, which is no ball, is left out: its sigma tells (`Sphere.rival_mm`)."""
    import drawn_bones
    import fast_simplification

    bones = [(f"{kind}_left", drawn_bones.draw(np.random.default_rng(500 + number), kind, "whole", "left").mesh, "drawn")
             for number in range(count)]  # fmt: skip
    bones += [(f"{kind}_{side}", real(kind.capitalize(), side), "real") for side in ("left", "right")]
    out = []
    for name, mesh, whose in bones:
        few = fast_simplification.simplify(mesh.vertices.copy(), mesh.faces.copy(), target_count=len(mesh.faces) // 10)
        many, less = anatomy.examine(name, mesh), anatomy.examine(name, Mesh(*few))
        for mark in many.landmarks:
            if whose == "real" or mark != "acetabulum_center":
                gone = mark not in less.landmarks
                out.append((mark, np.inf if gone else float(np.linalg.norm(many.at(mark) - less.at(mark)))))
    return out


class Remeshed:
    """How far landmarks move at a tenth of the triangles."""

    timeout = 600
    params = ("femur", "hip", "tibia")
    param_names = ("bone",)

    def setup_cache(self) -> dict[str, list[tuple[str, float]]]:
        return {kind: remeshed(kind) for kind in self.params}

    def track_within_03_mm_pct(self, found: dict[str, list[tuple[str, float]]], bone: str) -> float:
        return 100.0 * float(np.mean([moved <= 0.3 for _, moved in found[bone]]))

    def track_worst_mm(self, found: dict[str, list[tuple[str, float]]], bone: str) -> float:
        return max(moved for _, moved in found[bone])


class Speed:
    """Seconds once the program is loaded."""

    repeat = 3

    def setup(self) -> None:
        bones = (("Femur", "left"), ("Tibia", "left"), ("Hip", "left"), ("Hip", "right"))
        self.bones = {f"{kind.lower()}_{side}": real(kind, side) for kind, side in bones}
        for name, mesh in self.bones.items():
            anatomy.examine(name, mesh)

    def time_femur(self) -> None:
        anatomy.examine("femur_left", self.bones["femur_left"])

    def time_leg_and_pelvis(self) -> None:
        anatomy.examine_all(self.bones)


def main() -> int:
    """The drawn bones, with every miss named."""
    given = sys.argv[1:4]
    count, seed, how = [*given, *("500", "0", "plain")[len(given) :]]
    began = time.process_time()
    for name, value in harder(int(count), int(seed), how, say=True).items():
        print(f"{name:24s} {value:8.3f}")
    print(f"{(time.process_time() - began) / int(count):.2f} s of processor a bone")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
