"""Total hips of sampled patients against the same rules applied to what they were drawn from. asv names.

IMPLANTFORGE_HIPS (default 100) says how many hips: both sides of seeds 3100, 3101, ... (the search was refined on
3000 to 3099). The bones are those drawn, not segmented (bench_bones and bench_patients measure that); the femur is cut
where its scan ends, its canal is read from a CT painted around it with the blur and noise of a whole one. Truth: the planted
hip centre, socket radius and lesser trochanter, and the canal as it was painted, by the very search that plans.
`python benchmarks/bench_hips.py 4` prints every hip.
"""

import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import manifold3d
import numpy as np

from implantforge.core import Grid, ImplantForgeError, Labels, Mesh, Pose, Volume
from implantforge.implants import Case, hip_cup, hip_stem, hip_total
from implantforge.stages import fit as seating
from implantforge.stages import legs
from implantforge.stages.anatomy import canal, femur, hip
from implantforge.stages.fit import stemsearch
from implantforge.stages.phantoms import bones, hip_scene, paint, truth
from implantforge.stages.phantoms.distance import signed

COUNT = int(os.environ.get("IMPLANTFORGE_HIPS", "100"))
FIRST_SEED, MESH_MM = 3100, 2.0
SPACING_MM = (0.8, 0.8, 1.0)
FINE_MM = 0.8


def grid_around(frame: Any, spacing: Any) -> Grid:
    """The grid over one proximal femur, to 190 mm below the lesser trochanter."""
    ends = np.stack([frame.head, frame.trochanter + 190.0 * frame.distal])
    low, high = ends.min(axis=0) - [75.0, 50.0, 0.0], ends.max(axis=0) + [75.0, 50.0, 45.0]
    i, j, k = np.ceil((high - low) / spacing).astype(int)
    return Grid(Pose(np.eye(3), np.round(low, 2)), np.array(spacing), (int(i), int(j), int(k)))


def scan(drawn: Any, side: str, rng: Any) -> Volume:
    """A CT of one proximal femur in its soft tissue."""
    grid = grid_around(drawn.femur[side], SPACING_MM)
    scanner = paint.draw_scanner(rng, None, SPACING_MM[2])
    whole = hip_scene.scene(drawn, SPACING_MM, scanner)
    tissue = partial(hip_scene._tissue, drawn, grid, whole.trunk, scanner)
    scene = replace(whole, grid=grid, labels={f"femur_{side}": 1}, tissue=tissue)
    return paint.paint(drawn, scene, scanner, rng)[0]


def cut_at(mesh: Mesh, z_mm: float) -> Mesh:
    """The part of a closed mesh above a level, closed."""
    body = manifold3d.Manifold(manifold3d.Mesh(np.float32(mesh.vertices), np.uint32(mesh.faces)))
    out = body.trim_by_plane((0.0, 0.0, 1.0), z_mm).to_mesh()
    return Mesh(np.asarray(out.vert_properties, np.float64)[:, :3], np.asarray(out.tri_verts, np.int32))


def true_scan(drawn: Any, side: str, edge_hu: float) -> Volume:
    """HU that cross the endosteal threshold exactly where the painter's cortex ends, without blur or noise."""
    grid = grid_around(drawn.femur[side], (FINE_MM,) * 3)
    depth = signed(drawn.meshes[f"femur_{side}"], grid.pose.origin_mm, grid.spacing_mm, grid.shape,
                   inner_mm=11.0, outer_mm=2.5)  # fmt: skip
    near = depth < 2.0
    points = grid.to_patient(np.argwhere(near))
    hu = np.full(grid.shape, 1400, np.int16)
    inner = depth[near] + drawn.cortex[f"femur_{side}"](points)
    hu[near] = np.rint(edge_hu + 700.0 * np.clip(inner / FINE_MM, -1.0, 1.0)).astype(np.int16)
    return Volume(grid, hu)


def whole_shaft(mesh: Mesh, frame: Any) -> tuple[Any, Any]:
    """Point and unit vector (distally) of the line through sections from a quarter to three quarters of a whole femur."""
    point, shaft = truth._axis(mesh, frame, 40, 160)
    for _ in range(2):
        high = mesh.vertices @ shaft
        lesser, length = frame.trochanter @ shaft - high.min(), np.ptp(high)
        point, shaft = truth._axis(mesh, frame, 0.25 * length - lesser, 0.75 * length - lesser)
    return point, shaft


def drawn_head(drawn: Any, side: str) -> Any:
    """Centre of the head as the final mesh has it; planted, it is where the socket's centre is."""
    mesh, frame = drawn.meshes[f"femur_{side}"], drawn.femur[side]
    point, shaft = whole_shaft(mesh, frame)
    level = point + shaft * ((frame.trochanter - point) @ shaft)
    toward = (frame.trochanter + 2 * (level + (frame.head - level) * 0.25)) / 3
    neck = truth._neck(mesh, frame.head, frame.radius, toward) - frame.head
    return truth._head(mesh, frame.head, frame.radius, neck / np.linalg.norm(neck))[0]


def true_femur(found: Any, drawn: Any, side: str) -> Any:
    """The measured anatomy with head and lesser trochanter as drawn: the millimetre or so of its bump that stands furthest
    from the axis of the whole shaft, on the mesh itself."""
    mesh, frame = drawn.meshes[f"femur_{side}"], drawn.femur[side]
    point, shaft = whole_shaft(mesh, frame)
    corners = mesh.vertices[mesh.faces]
    corners = corners[np.linalg.norm(corners.mean(axis=1) - frame.trochanter, axis=1) < 16.0]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area, rng = np.linalg.norm(normal, axis=1), np.random.default_rng(0)
    which = rng.choice(len(area), 100_000, p=area / area.sum())
    cloud = np.einsum("kc,kcx->kx", rng.dirichlet([1.0, 1.0, 1.0], len(which)), corners[which])
    normal = normal[which] / area[which, None]
    across = (cloud - point) - np.outer((cloud - point) @ shaft, shaft)
    far = np.linalg.norm(across, axis=1)
    outward, lesser = np.einsum("ij,ij->i", across, normal) > 0.3 * far, frame.trochanter
    for _ in range(12):
        gap = np.linalg.norm(cloud - lesser, axis=1) / 10.0
        height = np.where(outward & (gap < 1.0), far - 4.0 * gap**2, -np.inf)
        weight = np.exp((height - height.max()) / 0.75)
        lesser = weight @ cloud / weight.sum()
    marks = dict(found.landmarks)
    for name, at in (("head_center", drawn_head(drawn, side)), ("lesser_trochanter", lesser)):
        marks[name] = replace(marks[name], at_mm=at)
    return replace(found, landmarks=marks)


def true_hip(found: Any, drawn: Any, side: str) -> Any:
    """The measured anatomy with socket and its radius as planted."""
    frame = drawn.femur[side]
    marks = dict(found.landmarks)
    marks["acetabulum_center"] = replace(marks["acetabulum_center"], at_mm=frame.head)
    radius = frame.radius + drawn.drawn[f"joint_gap_planted_{side}_mm"]
    return replace(found, landmarks=marks, measures={**found.measures, "acetabulum_radius_mm": radius})


def measured(drawn: Any, seed: int) -> tuple[dict[str, Any], dict[str, Mesh], dict[str, Volume]]:
    """Anatomy, surfaces and scans as a plan would get them."""
    found, meshes, scans = {}, {}, {}
    for side in ("left", "right"):
        name = f"femur_{side}"
        scans[side] = scan(drawn, side, np.random.default_rng([seed, 2]))
        meshes[name] = cut_at(drawn.meshes[name], scans[side].grid.pose.origin_mm[2] + 3.0)
        meshes[f"hip_{side}"] = drawn.meshes[f"hip_{side}"]
        found[name] = femur.measure(meshes[name], side)  # type: ignore[arg-type]
        found[f"hip_{side}"] = hip.measure(meshes[f"hip_{side}"], side)  # type: ignore[arg-type]
    return found, meshes, scans


def turned_deg(a: Any, b: Any) -> float:
    """Angle between two unit vectors."""
    return float(np.degrees(np.arccos(np.clip(a @ b, -1.0, 1.0))))


def apart_mm(a: Any, b: Any, name: str) -> float:
    """Distance between two landmarks of one name."""
    return float(np.linalg.norm(a.at(name) - b.at(name)))


def one(drawn: Any, side: str, found: Any, meshes: Any, volume: Volume) -> dict[str, Any]:
    """One hip planned from what was measured and from what was drawn."""
    implant, name, began = hip_total.IMPLANT, f"femur_{side}", time.process_time()
    params = implant.Params()
    wall = canal.cavity(volume, meshes[name], found[name], params.stem.endosteal_hu, params.stem.cortex_mm)
    known = {**found, name: canal.with_canal(found[name], wall)}
    labels = Labels(volume.grid, np.zeros(volume.grid.shape, np.uint8), {})
    case = Case(side, volume, labels, meshes, known)  # type: ignore[arg-type]
    with patch.object(hip_stem, "cavity", lambda *_: wall):  # found above: once is enough
        fit = implant.plan(case, params)
    seconds = time.process_time() - began
    planted = {
        n: true_hip(a, drawn, n[4:]) if n.startswith("hip") else true_femur(a, drawn, n[6:]) for n, a in found.items()
    }
    fine = true_scan(drawn, side, params.stem.endosteal_hu)
    wall = canal.cavity(fine, meshes[name], planted[name], params.stem.endosteal_hu, params.stem.cortex_mm)
    planted[name] = canal.with_canal(planted[name], wall)
    real = Case(side, fine, labels, meshes, planted)  # type: ignore[arg-type]
    cup = hip_cup.plan(real, params.cup)
    stem = hip_stem.seated(wall, planted[name], params.stem, cup.pose.origin_mm)
    frame, ours = np.array(cup.params["frame_rotation"]), fit.parts
    sizes = {"cup": cup.params["size"], "stem": stem.params["size"]}
    canal_error = ours["stem"].metrics["canal_size"] - stem.metrics["canal_size"]
    # where a size is another, its place is held against that of the same size
    if ours["cup"].params["size"] != sizes["cup"]:
        cup = hip_cup.plan(real, params.cup.model_copy(update={"size": ours["cup"].params["size"]}))
    if ours["stem"].params["size"] != sizes["stem"]:
        same = params.stem.model_copy(update={"size": ours["stem"].params["size"]})
        stem = hip_stem.seated(wall, planted[name], same, cup.pose.origin_mm)
    other = "right" if side == "left" else "left"
    middle = (found["hip_left"].at("asis") + found["hip_right"].at("asis")) / 2.0
    shares = [legs.share(drawn.femur[at].head, true_femur(found[f"femur_{at}"], drawn, at), frame, middle)
              for at in (side, other)]  # fmt: skip
    apart = [fit.metrics[f"{what}_difference_before_mm"] for what in ("leg_length", "offset")]
    # what the planned metal does to the leg, read in the true pelvic frame
    moved = ours["cup"].pose.origin_mm - np.array(ours["stem"].params["head_mm"])
    got, want = legs.change(moved, frame, side), legs.Share(0.0, 0.0)
    off = ours["stem"].pose.rotation.T @ (ours["stem"].pose.origin_mm - stem.pose.origin_mm)
    return {
        "side": side, "refused": "", "cpu_s": seconds,
        "cup_size": ours["cup"].params["size"], "cup_true_size": sizes["cup"],
        "stem_size": ours["stem"].params["size"], "stem_true_size": sizes["stem"],
        "canal_size_error": float(canal_error),
        "cup_mm": float(np.linalg.norm(ours["cup"].pose.origin_mm - cup.pose.origin_mm)),
        "cup_deg": turned_deg(ours["cup"].pose.rotation[:, 2], cup.pose.rotation[:, 2]),
        "stem_mm": float(np.linalg.norm(off)), "stem_across_mm": float(np.hypot(off[0], off[1])),
        "stem_along_mm": abs(float(off[2])),
        "stem_deg": turned_deg(ours["stem"].pose.rotation[:, 2], stem.pose.rotation[:, 2]),
        "stem_turn_deg": turned_deg(ours["stem"].pose.rotation[:, 0], stem.pose.rotation[:, 0]),
        "leg_length_mm": abs(got.length_mm - want.length_mm), "offset_mm": abs(got.offset_mm - want.offset_mm),
        "leg_difference_mm": abs(apart[0] - shares[0].length_mm + shares[1].length_mm),
        "offset_difference_mm": abs(apart[1] - shares[0].offset_mm + shares[1].offset_mm),
        "head_mm": apart_mm(found[name], planted[name], "head_center"),
        "trochanter_mm": apart_mm(found[name], planted[name], "lesser_trochanter"),
        "same_style": float(all(ours["stem"].params[k] == stem.params[k] for k in hip_stem.Style._fields)),
        "stem_odds_pct": ours["stem"].metrics["size_probability_pct"],
        "cup_odds_pct": ours["cup"].metrics["size_probability_pct"],
        "stem_fill_pct": ours["stem"].metrics["fill_mid_pct"], "stem_true_fill_pct": stem.metrics["fill_mid_pct"],
        "coverage_pct": ours["cup"].metrics["coverage_pct"],
    }  # fmt: skip


def pair(seed: int) -> list[dict[str, Any]]:
    """Both hips of a seed; a refusal is a row with its reason."""
    drawn, out = bones.draw(np.random.default_rng([seed, 1]), MESH_MM), []
    try:
        found, meshes, scans = measured(drawn, seed)
    except ImplantForgeError as error:
        return [{"seed": seed, "side": side, "refused": str(error)} for side in ("left", "right")]
    for side in ("left", "right"):
        try:
            out.append({"seed": seed, **one(drawn, side, found, meshes, scans[side])})
        except ImplantForgeError as error:
            out.append({"seed": seed, "side": side, "refused": str(error)})
    return out


def rows(count: int = COUNT) -> list[dict[str, Any]]:
    """Hips in order of seed and side, a seed to a processor."""
    out: list[dict[str, Any]] = []
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        for both in pool.map(pair, range(FIRST_SEED, FIRST_SEED + (count + 1) // 2)):
            for row in both[: count - len(out)]:
                out.append(row)
                print("  " + "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()),
                      flush=True)  # fmt: skip
    return out


class StemSearch:
    """Every size and style of the three stem families in one drawn canal, the canal known."""

    params = ("fit and fill", "taper wedge", "short")
    param_names = ("family",)

    def setup(self, family: str) -> None:
        drawn = bones.draw(np.random.default_rng([FIRST_SEED, 1]), MESH_MM)
        name = "femur_left"
        volume = scan(drawn, "left", np.random.default_rng([FIRST_SEED, 2]))
        mesh = cut_at(drawn.meshes[name], volume.grid.pose.origin_mm[2] + 3.0)
        found, params = femur.measure(mesh, "left"), hip_stem.StemParams()
        wall = canal.cavity(volume, mesh, found, params.endosteal_hu, params.cortex_mm)
        start = seating.on_canal(canal.with_canal(found, wall), params.resection_above_trochanter_mm, 45.0)
        self.canal = stemsearch.Canal(wall, start, found.at("head_center"), seating.cut_normal(45.0))
        self.asked = stemsearch.Asked(family, None, None, params.section_exponent, params.press_fit_mm,
                                      params.overlap_limit_mm)  # fmt: skip

    def time_search(self, family: str) -> None:
        stemsearch.search(self.asked, self.canal)

    def track_bodies_seated(self, family: str) -> float:
        with patch.object(stemsearch, "_rested", wraps=stemsearch._rested) as seated:
            stemsearch.search(self.asked, self.canal)
        return float(seated.call_count)


class Hips:
    """Shares and worst cases over all hips that were not refused."""

    timeout = 14400

    def setup_cache(self) -> list[dict[str, Any]]:
        return rows()

    def _values(self, found: list[dict[str, Any]], key: str) -> np.ndarray:
        return np.array([row[key] for row in found if not row["refused"]], float)

    def _steps(self, found: list[dict[str, Any]], part: str, step: float) -> np.ndarray:
        return np.abs(self._values(found, f"{part}_size") - self._values(found, f"{part}_true_size")) / step

    def track_hips(self, found: list[dict[str, Any]]) -> float:
        return len(found)

    def track_refused(self, found: list[dict[str, Any]]) -> float:
        return sum(bool(row["refused"]) for row in found)

    def track_cup_exact_size_pct(self, found: list[dict[str, Any]]) -> float:
        return float(100 * np.mean(self._steps(found, "cup", 2.0) == 0))

    def track_cup_within_one_size_pct(self, found: list[dict[str, Any]]) -> float:
        return float(100 * np.mean(self._steps(found, "cup", 2.0) <= 1))

    def track_stem_exact_size_pct(self, found: list[dict[str, Any]]) -> float:
        return float(100 * np.mean(self._steps(found, "stem", 1.0) == 0))

    def track_stem_within_one_size_pct(self, found: list[dict[str, Any]]) -> float:
        return float(100 * np.mean(self._steps(found, "stem", 1.0) <= 1))

    def track_cup_centre_worst_mm(self, found: list[dict[str, Any]]) -> float:
        return float(self._values(found, "cup_mm").max())

    def track_cup_axis_worst_deg(self, found: list[dict[str, Any]]) -> float:
        return float(self._values(found, "cup_deg").max())

    def track_stem_place_median_mm(self, found: list[dict[str, Any]]) -> float:
        return float(np.median(self._values(found, "stem_mm")))

    def track_stem_place_worst_mm(self, found: list[dict[str, Any]]) -> float:
        return float(self._values(found, "stem_mm").max())

    def track_stem_axis_worst_deg(self, found: list[dict[str, Any]]) -> float:
        return float(self._values(found, "stem_deg").max())

    def track_leg_length_worst_mm(self, found: list[dict[str, Any]]) -> float:
        return float(self._values(found, "leg_length_mm").max())

    def track_offset_worst_mm(self, found: list[dict[str, Any]]) -> float:
        return float(self._values(found, "offset_mm").max())

    def track_leg_length_difference_to_other_side_worst_mm(self, found: list[dict[str, Any]]) -> float:
        return float(self._values(found, "leg_difference_mm").max())

    def track_leg_length_difference_to_other_side_median_mm(self, found: list[dict[str, Any]]) -> float:
        return float(np.median(self._values(found, "leg_difference_mm")))

    def track_offset_difference_to_other_side_worst_mm(self, found: list[dict[str, Any]]) -> float:
        return float(self._values(found, "offset_difference_mm").max())

    def track_stem_place_within_1_mm_and_1_5_deg_pct(self, found: list[dict[str, Any]]) -> float:
        turn = np.maximum(self._values(found, "stem_deg"), self._values(found, "stem_turn_deg"))
        return float(100 * np.mean((self._values(found, "stem_mm") <= 1.0) & (turn <= 1.5)))

    def track_canal_size_sigma(self, found: list[dict[str, Any]]) -> float:
        return float(np.sqrt(np.mean(self._values(found, "canal_size_error") ** 2)))

    def track_stem_odds_told_pct(self, found: list[dict[str, Any]]) -> float:
        return float(self._values(found, "stem_odds_pct").mean())

    def track_cup_odds_told_pct(self, found: list[dict[str, Any]]) -> float:
        return float(self._values(found, "cup_odds_pct").mean())

    def track_fill_median_pct(self, found: list[dict[str, Any]]) -> float:
        return float(np.median(self._values(found, "stem_fill_pct")))

    def track_fill_least_pct(self, found: list[dict[str, Any]]) -> float:
        return float(self._values(found, "stem_fill_pct").min())

    def track_coverage_least_pct(self, found: list[dict[str, Any]]) -> float:
        return float(self._values(found, "coverage_pct").min())

    def track_cpu_median_s(self, found: list[dict[str, Any]]) -> float:
        return float(np.median(self._values(found, "cpu_s")))


if __name__ == "__main__":
    rows(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT)
