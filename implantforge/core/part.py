"""From plan to part: fit, lattice, design, part and check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from implantforge.core.field import Field
from implantforge.core.mesh import Mesh
from implantforge.core.space import Array, Pose


@dataclass(frozen=True, eq=False)
class Fit:
    """Which size, where: what a surgeon adjusts. pose is implant-local to patient; alternatives are ranked, best first.
    parts holds the plan of each part by its name when several are planned together."""

    implant: str
    params: Mapping[str, Any]
    pose: Pose
    metrics: Mapping[str, float]
    alternatives: tuple[Mapping[str, Any], ...] = ()
    reason: str = ""
    parts: Mapping[str, Fit] = field(default_factory=dict)


@dataclass(frozen=True)
class Grade:
    """What changes with what: knots (at_mm, value), at rising, linear between, level beyond. by is `depth` under the
    surface, distance from a `point` or an `axis`, the coordinate `along` an axis, or the name of a field given beside
    (HU, stress, distance to a screw)."""

    what: Literal["wall_mm", "porosity", "cell_mm"]
    by: str
    knots: tuple[tuple[float, float], ...]
    at_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axis: tuple[float, float, float] = (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Lattice:
    """A porous filling asked in the user's terms: cell and exactly one of a true wall, strut or neck (mm), a porosity
    (0..1) or a pore (mm, median local thickness of the void). seed chooses among the stochastic ones. placement says
    along what cells lie; grades change them from place to place."""

    kind: str = "gyroid"
    form: Literal["sheet", "network", "strut"] = "network"
    cell_mm: float = 1.4
    wall_mm: float | None = None
    porosity: float | None = None
    pore_mm: float | None = None
    seed: int = 0
    placement: Literal["cartesian", "cylindrical", "spherical", "conformal"] = "cartesian"
    axis: tuple[float, float, float] = (0.0, 0.0, 1.0)
    grades: tuple[Grade, ...] = ()


@dataclass(frozen=True, eq=False)
class Design:
    """Fields in implant-local mm. solid is the dense metal, porous the region to be filled, envelope their nominal union,
    bone_cut what the surgeon removes, machined the analytic surfaces a shop finishes (kept as plain data)."""

    solid: Field
    porous: Field
    envelope: Field
    lattice: Lattice
    bone_cut: Field | None = None
    machined: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Part:
    """The metal as it will be printed: mesh in patient LPS mm, build_direction a unit vector in the same frame."""

    mesh: Mesh
    design_hash: str
    material: str
    build_direction: Array
    mass_g: float


@dataclass(frozen=True)
class Check:
    """One question put to a part. A failed check is a value, not an exception; severity 'flag' never fails a build."""

    name: str
    value: float
    unit: str
    limit: float
    sense: Literal["<=", ">="]
    passed: bool
    source: str
    at_mm: tuple[float, float, float] | None = None
    severity: Literal["fail", "flag"] = "fail"
    assumptions: tuple[str, ...] = field(default=())


def check(
    name: str, value: float, unit: str, sense: Literal["<=", ">="], limit: float, source: str, **more: Any
) -> Check:
    """A Check with `passed` worked out from value, sense and limit (NaN never passes)."""
    passed = bool(value <= limit if sense == "<=" else value >= limit)
    return Check(name, float(value), unit, float(limit), sense, passed, source, **more)
