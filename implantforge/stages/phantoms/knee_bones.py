"""A drawn left knee: shank and patella seated on the femur with a joint gap, or worn down to a planted bony contact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from implantforge.core import Array, GeometryError, Mesh, Pose, Side
from implantforge.stages.phantoms import model
from implantforge.stages.phantoms.bones import Bones, FemurFrame, landmarks, posed_femur
from implantforge.stages.phantoms.distance import Float, signed
from implantforge.stages.phantoms.solids import field_of, normals, part, polygonise

Compartment = Literal["medial", "lateral"]
KNEE = ("femur", "tibia", "fibula", "patella")
_REACH_MM = 24.0
_CLEARANCE_MM = {"patella": 2.2, "tibia": 1.4, "fibula": 0.9}


@dataclass
class KneeFrame:
    """Middle of the joint between the condyles, unit axes: up (mechanical), out (lateral), front; LPS mm.

    contact is where both bones were worn into each other, None where the joint is sound.
    """

    middle: Array
    up: Array
    out: Array
    front: Array
    contact: Array | None = None

    def moved(self, pose: Pose) -> KneeFrame:
        """Carried by a rigid pose."""
        contact = None if self.contact is None else pose.apply(self.contact)
        up, out, front = (pose.rotation @ axis for axis in (self.up, self.out, self.front))
        return KneeFrame(pose.apply(self.middle), up, out, front, contact)

    def above(self, points: Array) -> Array:
        """Millimetres above the joint."""
        return (points - self.middle) @ self.up


@dataclass
class _Nearby:
    """Signed distance around a joint, negative inside the bone, beyond the box the reach."""

    start: Array
    pitch: float
    values: Float

    def __call__(self, points: Array) -> Array:
        index = (points - self.start) / self.pitch
        return map_coordinates(self.values, index.T, order=1, mode="nearest")


def _nearby(mesh: Mesh, lo: Array, hi: Array, pitch: float = 2.0) -> _Nearby:
    shape = np.ceil((hi - lo) / pitch).astype(int)
    size = (int(shape[0]), int(shape[1]), int(shape[2]))
    return _Nearby(lo, pitch, signed(mesh, lo, np.full(3, pitch), size, inner_mm=_REACH_MM / 2, outer_mm=_REACH_MM))


def _rigid(source: Array, target: Array) -> tuple[Array, Array]:
    """Rotation and translation that carry source (n,3) onto target best."""
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    u, _, vt = np.linalg.svd(b.T @ a)
    rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    return rotation, target.mean(axis=0) - source.mean(axis=0) @ rotation.T


def _frame(femur: Array) -> KneeFrame:
    """From a left femur with its head at the origin: the joint's middle lies between the lowest points of its condyles."""
    up = -femur[np.linalg.norm(femur, axis=1) > np.linalg.norm(femur, axis=1).max() - 20].mean(axis=0)
    for _ in range(2):
        up = up / np.linalg.norm(up)
        height = femur @ up
        low = femur[height < height.min() + 35]
        across = np.cross([0.0, 1.0, 0.0], up)  # left: lateral of a left knee
        across /= np.linalg.norm(across)
        x = low @ across
        split = (np.percentile(x, 2) + np.percentile(x, 98)) / 2
        behind = [low[side][np.argmax(low[side][:, 1])] for side in (x < split, x >= split)]
        out = behind[1] - behind[0]
        out = out - up * (out @ up)
        out /= np.linalg.norm(out)
        lowest = [low[side][np.argmin(low[side] @ up)] for side in (x < split, x >= split)]
        middle = np.mean(lowest, axis=0)
        up = -middle
    up = up / np.linalg.norm(up)
    out = out - up * (out @ up)
    out /= np.linalg.norm(out)
    return KneeFrame(middle, up, out, np.cross(out, up))


def _few(values: Array, count: int = 12) -> float:
    """Mean of the smallest values: a minimum that one vertex cannot decide."""
    return float(np.partition(values, count)[:count].mean()) if len(values) > count else float(_REACH_MM)


def _seat_shank(
    femur: _Nearby, plateau: Array, rest: list[Array], frame: KneeFrame, gaps: tuple[float, float]
) -> tuple[list[Array], Array]:
    """Plateau vertices and bones moved until medial and lateral gaps are met where the surfaces fit best.

    Returns the bones and the plateau in their new place.
    """
    pivot = frame.middle

    def placed(x: Array, points: Array) -> Array:
        turn = Rotation.from_rotvec(np.radians(x[3]) * frame.front + np.radians(x[4]) * frame.up).as_matrix()
        return (points - pivot) @ turn.T + pivot + x[0] * frame.out + x[1] * frame.front + x[2] * frame.up

    def cost(x: Array) -> float:
        points = placed(x, plateau)
        d, side = femur(points), (points - pivot) @ frame.out
        inner, outer = d[(side < -8) & (side > -45)], d[(side > 8) & (side < 45)]
        miss = (_few(inner) - gaps[0]) ** 2 + (_few(outer) - gaps[1]) ** 2 + min(_few(d) - min(gaps), 0.0) ** 2
        close = _few(inner, len(inner) // 3) + _few(outer, len(outer) // 3)
        return 20.0 * miss + close + 0.004 * (x[3] ** 2 + x[4] ** 2)

    middle = plateau.mean(axis=0)
    start = np.zeros(5)
    start[0] = (pivot - middle) @ frame.out
    start[1] = (pivot - middle) @ frame.front - 2.0
    start[2] = (pivot - middle) @ frame.up - np.percentile((plateau - middle) @ frame.up, 97) - 2.0
    simplex = np.vstack([start, start + np.diag([3.0, 3.0, 3.0, 2.0, 3.0])])
    best = minimize(cost, start, method="Nelder-Mead", options={"maxiter": 420, "initial_simplex": simplex}).x
    return [placed(best, points) for points in rest], placed(best, plateau)


def _worn(
    femur: _Nearby, tibia: Mesh, frame: KneeFrame, compartment: Compartment, area_mm2: float
) -> tuple[Pose, Array]:
    """Tilt about the other compartment that sinks the bones into each other over an area, and where they meet.

    GeometryError when no tilt of up to 12 degrees reaches it.
    """
    sign = -1.0 if compartment == "medial" else 1.0
    v, n = tibia.vertices, normals(tibia)
    share = np.zeros(len(v))
    np.add.at(share, tibia.faces.ravel(), np.repeat(np.linalg.norm(tibia.face_cross, axis=1) / 6.0, 3))
    top = np.flatnonzero((n @ frame.up > 0.3) & (frame.above(v) > -22) & (np.abs((v - frame.middle) @ frame.out) < 45))
    v, share = v[top], share[top]
    side = (v - frame.middle) @ frame.out * sign
    other = v[side < -8][np.argmin(femur(v[side < -8]))]

    def tilted(angle_deg: float) -> Pose:
        turn = Rotation.from_rotvec(sign * np.radians(angle_deg) * frame.front).as_matrix()
        return Pose(turn, other - turn @ other)

    def touching(angle_deg: float) -> float:
        return float(share[(femur(tilted(angle_deg).apply(v)) < 0.0) & (side > 5)].sum())

    low, high = 0.0, 12.0
    if touching(high) < area_mm2:
        raise GeometryError(f"knee: no tilt up to {high:.0f} deg brings {area_mm2:.0f} mm2 of bone into contact")
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if touching(middle) < area_mm2 else (low, middle)
    pose = tilted(high)
    place = pose.apply(v)
    return pose, place[(side > 5)][np.argmin(femur(place[side > 5]))]


def _seat_patella(femur: _Nearby, patella: Array, frame: KneeFrame, height: float, gap: float) -> Array:
    """In front of the groove, its middle at a height above the joint, where its back fits best."""

    def placed(x: Array) -> Array:
        turn = Rotation.from_rotvec(np.radians(x[2]) * frame.up).as_matrix()
        middle = patella.mean(axis=0)
        at = frame.middle + height * frame.up + x[0] * frame.out + x[1] * frame.front
        return (patella - middle) @ turn.T + at

    def cost(x: Array) -> float:
        d = femur(placed(x))
        return 20.0 * (_few(d, 6) - gap) ** 2 + _few(d, len(d) // 4) + 0.004 * x[2] ** 2

    far = minimize(lambda y: cost(np.array([2.0, float(y[0]), 0.0])), [42.0], method="Nelder-Mead").x[0]
    start = np.array([2.0, far, 0.0])
    simplex = np.vstack([start, start + np.diag([4.0, 2.0, 4.0])])
    return placed(minimize(cost, start, method="Nelder-Mead", options={"maxiter": 200, "initial_simplex": simplex}).x)


def _seat_fibula(tibia: _Nearby, fibula: Array, frame: KneeFrame, gap: float) -> Array:
    """Shifted toward or from the tibia until their heads are a gap apart."""
    head = fibula[frame.above(fibula) > frame.above(fibula).max() - 25]
    around = np.linspace(-1.0, 1.0, 9)
    toward = [-frame.out * np.cos(a) + frame.front * np.sin(a) for a in around]
    shifts = [(s, t) for t in toward for s in np.arange(-12.0, 12.1, 0.25)]
    miss = [abs(_few(tibia(head + s * t), 5) - gap) + 0.15 * abs(s) for s, t in shifts]
    s, t = shifts[int(np.argmin(miss))]
    return fibula + s * t


def seat(
    femur: Array, raw: dict[str, Array], rng: np.random.Generator, faces: dict[str, NDArray[np.int32]],
    worn: tuple[Compartment, float],
) -> tuple[dict[str, Mesh], KneeFrame, dict[str, float]]:  # fmt: skip
    """A left femur (head at the origin) with tibia, fibula and patella of the same sample seated against it.

    worn is the compartment and the mm2 of bony contact planted there, 0 for a sound joint.
    """
    frame = _frame(femur)
    nearby = _nearby(Mesh(femur, faces["femur"]), *_box(femur, frame))
    top = raw["tibia"][:, 2] > raw["tibia"][:, 2].max() - 12
    long = raw["tibia"][top].mean(axis=0) - raw["tibia"][raw["tibia"][:, 2] < raw["tibia"][:, 2].min() + 15].mean(
        axis=0
    )
    flexion, varus = rng.uniform(0.0, 7.0), rng.normal(0.0, 2.0)
    target = Rotation.from_rotvec(np.radians([flexion * frame.out, varus * frame.front]).sum(axis=0)).apply(frame.up)
    turn = Rotation.align_vectors([target], [long / np.linalg.norm(long)])[0].as_matrix()
    shank = {name: raw[name] @ turn.T for name in ("tibia", "fibula")}
    drawn = {"gap_medial_mm": float(rng.uniform(3.2, 5.0)), "gap_lateral_mm": float(rng.uniform(3.4, 5.4))}
    n = normals(Mesh(shank["tibia"], faces["tibia"]))
    height = frame.above(shank["tibia"])
    plateau = shank["tibia"][(n @ frame.up > 0.3) & (height > height.max() - 24)]
    gaps = (drawn["gap_medial_mm"], drawn["gap_lateral_mm"])
    (tibia, fibula), _ = _seat_shank(nearby, plateau, [shank["tibia"], shank["fibula"]], frame, gaps)
    if worn[1] > 0:
        pose, frame.contact = _worn(nearby, Mesh(tibia, faces["tibia"]), frame, *worn)
        tibia, fibula = pose.apply(tibia), pose.apply(fibula)
    drawn["gap_fibula_mm"], drawn["gap_patella_mm"] = float(rng.uniform(1.2, 2.0)), float(rng.uniform(3.8, 6.0))
    box = fibula[frame.above(fibula) > frame.above(fibula).max() - 45]
    lo, hi = box.min(axis=0) - 16, box.max(axis=0) + 16
    fibula = _seat_fibula(_nearby(Mesh(tibia, faces["tibia"]), lo, hi), fibula, frame, drawn["gap_fibula_mm"])
    height_mm = float(rng.uniform(26.0, 36.0))
    patella = _seat_patella(nearby, raw["patella"], frame, height_mm, drawn["gap_patella_mm"])
    points = {"femur": femur, "tibia": tibia, "fibula": fibula, "patella": patella}
    return {name: Mesh(points[name], faces[name]) for name in KNEE}, frame, drawn


def _box(femur: Array, frame: KneeFrame) -> tuple[Array, Array]:
    """Corners around the distal femur, wide enough for what is seated on it."""
    low = femur[frame.above(femur) < 70]
    return low.min(axis=0) - 20, low.max(axis=0) + 20


def _sample(
    rng: np.random.Generator,
) -> tuple[Array, FemurFrame, dict[str, Array], dict[str, NDArray[np.int32]]]:
    """A left leg of the model: its posed femur, the femur's frame, every bone carried along, and faces."""
    shape, atlas = model.load()
    weights = rng.standard_normal(len(shape.sd)).clip(-2, 2)
    nodes = shape.nodes(weights)
    raw = {name: atlas[f"{name}_left"][0] @ nodes for name in KNEE}
    femur, posed = posed_femur(raw["femur"], landmarks(), rng)
    low = raw["femur"][:, 2] < raw["femur"][:, 2].min() + 150
    turn, shift = _rigid(raw["femur"][low], femur[low])
    raw = {name: points @ turn.T + shift for name, points in raw.items()}
    return femur, posed, raw, {name: atlas[f"{name}_left"][1] for name in KNEE}


def below(
    femur: Mesh, head: Array, side: Side, rng: np.random.Generator, mesh_mm: float
) -> tuple[dict[str, Mesh], dict[str, Callable[[Array], Array]], KneeFrame, dict[str, float]]:
    """Tibia, fibula and patella for a femur that is already drawn, scaled to its condyles: meshes and cortex by name."""
    own = Mesh(femur.vertices - head, femur.faces)
    own = own.mirrored_x() if side == "right" else own
    drawn_femur, _, raw, faces = _sample(rng)
    target, source = _frame(own.vertices), _frame(drawn_femur)
    scale = _breadth(own.vertices, target) / _breadth(drawn_femur, source)
    turn = _axes(target) @ _axes(source).T
    raw = {name: scale * (points - source.middle) @ turn.T + target.middle for name, points in raw.items()}
    seated, frame, drawn = seat(own.vertices, raw, rng, faces | {"femur": own.faces}, ("medial", 0.0))
    carved = _carved(seated, mesh_mm, worn=False)
    if side == "right":
        carved = {name: mesh.mirrored_x() for name, mesh in carved.items()}
        frame = _mirrored(FemurFrame(head, 0.0, head, head), frame)[1]
    pose = Pose(np.eye(3), head)
    frame = frame.moved(pose)
    strength = float(rng.uniform(0.85, 1.15))
    names = {name: f"{name}_{side}" for name in KNEE if name != "femur"}
    cortex: dict[str, Callable[[Array], Array]] = {
        full: partial(_cortex, name, strength, frame) for name, full in names.items()
    }
    return {full: carved[name].moved(pose) for name, full in names.items()}, cortex, frame, drawn


def _axes(frame: KneeFrame) -> Array:
    return np.stack([frame.out, frame.front, frame.up], axis=1)


def _breadth(femur: Array, frame: KneeFrame) -> float:
    """Width of the condyles."""
    return float(np.ptp(femur[frame.above(femur) < 35] @ frame.out))


def draw(
    rng: np.random.Generator, mesh_mm: float, side: Side, worn: tuple[Compartment, float]
) -> tuple[Bones, KneeFrame]:
    """The four bones of one knee in a random overall pose, closed and clear of each other but for a planted contact."""
    femur, posed, raw, faces = _sample(rng)
    meshes, frame, drawn = seat(femur, raw, rng, faces, worn)
    angles, offset = (
        rng.uniform(-4, 4, 3),
        rng.uniform(-12, 12, 3) + rng.choice([-90.0, 0.0, 90.0]) * np.array([1, 0, 0]),
    )
    pose = Pose(Rotation.from_euler("xyz", angles, degrees=True).as_matrix(), -frame.middle)
    pose = Pose(np.eye(3), offset).compose(Pose(pose.rotation, pose.rotation @ pose.origin_mm))
    carved = _carved(meshes, mesh_mm, worn[1] > 0)
    if side == "right":
        carved = {name: mesh.mirrored_x() for name, mesh in carved.items()}
        posed, frame = _mirrored(posed, frame)
        pose = Pose(pose.rotation, offset - pose.rotation @ frame.middle)
    names = {name: f"{name}_{side}" for name in KNEE}
    placed = {names[name]: mesh.moved(pose) for name, mesh in carved.items()}
    frame = frame.moved(pose)
    strength = float(rng.uniform(0.85, 1.15))
    cortex: dict[str, Callable[[Array], Array]] = {
        names[name]: partial(_cortex, name, strength, frame) for name in KNEE
    }
    bones = Bones(placed, cortex, {side: posed.moved(pose)}, drawn=drawn)
    return bones, frame


def _mirrored(femur: FemurFrame, frame: KneeFrame) -> tuple[FemurFrame, KneeFrame]:
    flip = np.array([-1.0, 1.0, 1.0])
    contact = None if frame.contact is None else frame.contact * flip
    return (
        FemurFrame(femur.head * flip, femur.radius, femur.trochanter * flip, femur.distal * flip),
        KneeFrame(frame.middle * flip, frame.up * flip, frame.out * flip, frame.front * flip, contact),
    )


def _carved(meshes: dict[str, Mesh], h: float, worn: bool) -> dict[str, Mesh]:
    """Every bone smoothed and closed; joints keep their clearance, a worn joint meets in the surface halfway."""
    fields = {name: field_of(mesh, h) for name, mesh in meshes.items()}
    part(fields["femur"], fields["tibia"], 0.02 if worn else _CLEARANCE_MM["tibia"])
    part(fields["femur"], fields["patella"], _CLEARANCE_MM["patella"])
    part(fields["tibia"], fields["fibula"], _CLEARANCE_MM["fibula"])
    part(fields["femur"], fields["fibula"], _CLEARANCE_MM["patella"])
    part(fields["tibia"], fields["patella"], _CLEARANCE_MM["patella"])
    out = {name: polygonise(values, start, h) for name, (start, values) in fields.items()}
    for name, mesh in out.items():
        if mesh.volume_mm3 < 0.9 * meshes[name].volume_mm3:
            raise GeometryError(f"{name}: {mesh.volume_mm3:.0f} mm3 left of {meshes[name].volume_mm3:.0f}")
    return out


_SHARE: dict[str, tuple[list[float], list[float]]] = {
    "femur": ([-20, 32, 60, 100, 150, 230, 420], [1.25, 1.25, 1.9, 3.2, 4.8, 5.6, 1.4]),
    "tibia": ([-400, -340, -210, -120, -80, -40, -18, 20], [1.3, 1.5, 5.5, 4.8, 3.4, 2.0, 1.35, 1.35]),
    "fibula": ([-400, -340, -210, -70, -40, 0], [1.1, 1.2, 2.4, 2.2, 1.1, 1.0]),
    "patella": ([-100, 100], [1.5, 1.5]),
}
"""Millimetres above the joint, and cortex there (mm): thin at the joints, a tube down the shafts."""


def _cortex(name: str, strength: float, frame: KneeFrame, points: Array) -> Array:
    """Cortex of a bone at points, 1 mm at least; sclerotic where the bones are worn into each other."""
    thick = np.maximum(strength * np.interp(frame.above(points), *_SHARE[name]), 1.0)
    if frame.contact is not None and name in ("femur", "tibia"):
        thick += 1.5 * (1 - (np.linalg.norm(points - frame.contact, axis=1) / 14).clip(0, 1))
    return np.asarray(thick)
