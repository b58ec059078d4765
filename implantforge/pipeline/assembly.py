"""Parts made from one plan, side by side: their metrics, checks, surfaces and places on the plate as those of one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from implantforge.core import Check, Mesh, Pose
from implantforge.pipeline import cache
from implantforge.pipeline.cache import Result
from implantforge.stages.export import Body
from implantforge.stages.orient import build_pose

APART_MM = 10.0
_SUMS = (
    "part_volume_mm3", "part_mass_g", "net_mass_g", "solid_equivalent_mass_g", "support_mass_g", "milled_billet_mass_g",
    "triangles", "bone_overlap_mm3",
)  # fmt: skip
_BY_MASS = ("process_powder_loss_pct", "lattice_porosity_pct", "lattice_pore_size_um", "lattice_wall_um")


@dataclass(frozen=True)
class Metal:
    """One part of a plan, made and checked, unread: name is empty when the plan has one part."""

    name: str
    fit: Result
    envelope: Result
    part: Result
    orientation: Result
    verified: Result

    @property
    def mesh(self) -> Result:
        """Its surface in patient LPS."""
        return self.part["mesh"]

    def build_pose(self) -> Pose:
        """How it stands on the plate."""
        return build_pose(self.mesh.value, np.asarray(self.orientation["direction"].value))


def checks(metals: Sequence[Metal], whole: Iterable[Check] = ()) -> tuple[Check, ...]:
    """Those of the whole, then each part's, called `part_check` where there are several."""
    rows = list(whole)
    for metal in metals:
        rows += [_named(row, metal.name) for row in metal.verified["checks"].value]
    return tuple(rows)


def _named(row: Check, part: str) -> Check:
    return replace(row, name=f"{part}_{row.name}") if part else row


def metrics(metals: Sequence[Metal], whole: Mapping[str, Any]) -> dict[str, Any]:
    """Of one part: its own. Of several: the plan's, sums of mass and volume, means by mass of what the lattice is like,
    then each part's as `part_metric`."""
    own = {metal.name: metal.verified["metrics"].value for metal in metals}
    if "" in own:
        return dict(own[""])
    rows = list(own.values())
    out = dict(whole) | {name: sum(row[name] for row in rows) for name in _SUMS if all(name in row for row in rows)}
    mass = np.array([row["part_mass_g"] for row in rows])
    for name in _BY_MASS:
        if all(name in row for row in rows):
            out[name] = float(np.array([row[name] for row in rows]) @ mass / mass.sum())
    out["mass_saving_pct"] = 100.0 * (1.0 - out["part_mass_g"] / out["solid_equivalent_mass_g"])
    for part, row in own.items():
        out |= {f"{part}_{name}": value for name, value in row.items()}
    return out


def joined(metals: Sequence[Metal], of: str = "part") -> Result:
    """All surfaces (of the `part` or its `envelope`) as one mesh, patient LPS; keyed by theirs."""
    meshes = [getattr(metal, of)["mesh"] for metal in metals]
    if len(meshes) == 1:
        return meshes[0]
    return Result(cache.digest(*(mesh.key for mesh in meshes)), lambda _: _join([mesh.value for mesh in meshes]))


def _join(meshes: Sequence[Mesh]) -> Mesh:
    first = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    faces = [mesh.faces + np.int32(start) for mesh, start in zip(meshes, first)]
    return Mesh(np.concatenate([mesh.vertices for mesh in meshes]), np.concatenate(faces))


def on_plate(metals: Sequence[Metal]) -> list[Body]:
    """Each part as it stands on the plate, one beside the other along x."""
    out, x = [], 0.0
    for metal in metals:
        pose = metal.build_pose()
        beside = Pose(pose.rotation, pose.origin_mm + [x, 0.0, 0.0])
        out.append(Body(metal.name or "part", metal.mesh.value, beside))
        x += float(np.ptp(pose.apply(metal.mesh.value.vertices)[:, 0])) + APART_MM
    return out


def gap_samples(params: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The gap samples of several plans one after the other; None when none has any."""
    found = [row["gap_samples"] for row in params if row.get("gap_samples")]
    if len(found) < 2:
        return found[0] if found else None
    return {name: [item for row in found for item in row[name]] for name in ("points_mm", "gap_mm")}
