"""A toy implant on a toy patient: a capsule in a ball of bone. The real pipeline runs on it in well under a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from implantforge import implants
from implantforge.core import (
    Anatomy,
    Check,
    Design,
    Fit,
    Grid,
    InputError,
    Labels,
    Landmark,
    Lattice,
    Mesh,
    Pose,
    Volume,
    check,
)  # fmt: skip
from implantforge.geom import meshing, shapes
from implantforge.implants import Case, Implant, Params, choice, count, mm
from implantforge.pipeline import recipe as recipes
from implantforge.pipeline import steps

CENTRE_MM = np.array([-30.0, 12.0, 640.0])
TOKENS = ("Kovalenko^Olha", "MRN-4711-X", "19581103", "1.2.826.0.1.3680043.8.498.77")


class ToyParams(Params):
    """Parameters of the peg."""

    length_mm: float = mm(24.0, 10.0, 60.0, "length of the peg", source="toy", tag="P")
    radius_mm: float = mm(4.0, 2.0, 8.0, "radius of the peg", of="design")
    limit_mm: float = mm(100.0, 0.1, 200.0, "longest peg that passes its check", of="design")
    end: str = choice("round", ("round", "flat"), "shape of the end", of="design")
    size: int | None = count(None, 1, 9, "size, found when absent")


def plan(case: Case, params: ToyParams) -> Fit:
    """A peg at the ball's centre."""
    centre = case.anatomy[f"femur_{case.side}"].at("head_center")
    turn = Pose(np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]), centre)
    rows = ({"size": 3, "score": 0.9, "why": "fills best"}, {"size": 2, "score": 0.7, "why": "looser"})
    gap = {"points_mm": centre[None] + np.zeros((2, 3)), "gap_mm": np.array([0.5, -0.1])}
    return Fit("toy", {"size": 3, "length_mm": params.length_mm, "gap_samples": gap}, turn,
               {"size": 3, "fit_gap_mean_mm": 0.25, "contact_pct": 60.0}, rows, "size 3 fills best")  # fmt: skip


def design(fit: Fit, params: ToyParams) -> Design:
    """A capsule, its upper half porous."""
    end = np.array([0.0, 0.0, float(fit.params["length_mm"])])
    peg = shapes.capsule([0.0, 0.0, 0.0], end, params.radius_mm)
    porous = peg & shapes.half_space(end / 2, [0.0, 0.0, -1.0])
    taper = {"name": "end", "kind": "flat", "at_mm": end.tolist(), "stock_mm": 0.5, "stock_mm3": 12.0}
    return Design(peg, porous, peg, Lattice(porosity=0.7), machined=(taper,))


def checks(case: Case, fit: Fit, design: Design, part: Mesh, params: ToyParams) -> tuple[Check, ...]:
    """One check that a recipe can make fail."""
    return (
        check("peg_length_mm", float(fit.params["length_mm"]), "mm", "<=", params.limit_mm, "toy standard"),
        check("bone_overlap_mm3", 0.0, "mm3", "<=", 1.0, "toy standard"),
    )


IMPLANT = Implant(
    "toy", "A peg for tests.", "hip", ("femur_{side}",), ToyParams, plan, design, checks, lambda seed: None
)
RECIPE = '[implant]\nname = "toy"\n[case]\nside = "left"\n[lattice]\nporosity = 0.7\n[mesh]\nh_mm = 0.8\n'


def ball(names: dict[str, int] | None = None) -> tuple[Volume, Labels]:
    """A 40 mm ball of bone at CENTRE_MM."""
    grid = Grid(Pose(np.eye(3), CENTRE_MM - 30.0), np.array([2.0, 2.0, 2.0]), (30, 30, 30))
    at = grid.to_patient(np.indices(grid.shape).reshape(3, -1).T).reshape(*grid.shape, 3)
    inside = np.linalg.norm(at - CENTRE_MM, axis=-1) < 20.0
    hu = np.where(inside, 900, 40).astype(np.int16)
    return Volume(grid, hu, "0" * 64), Labels(grid, inside.astype(np.uint8), names or {"femur_left": 1})


def load(given: object, *, series: str | None, accept: str | None) -> dict:
    """Stands for steps.load; a file that says REFUSE is refused."""
    if isinstance(given, str) and Path(given).is_file() and "REFUSE" in Path(given).read_text("utf-8"):
        raise InputError("CT refused: slices missing")
    report = {"uid_hash": "0" * 64, "shape": [30, 30, 30], "spacing_mm": [2.0, 2.0, 2.0], "verdict": "accepted",
              "reasons": []}  # fmt: skip
    return {"volume": ball()[0], "report": report, "laterality": "unknown"}


def bones(volume: Volume) -> dict:
    """Stands for steps.bones."""
    return {"labels": ball()[1], "names": ["femur_left"]}


def skin(volume: Volume, labels: Labels, *, name: str) -> dict:
    """Stands for steps.skin."""
    mesh = meshing.polygonise(shapes.sphere(CENTRE_MM, 20.0), 2.0)
    return {"mesh": mesh, "sigma_mm": np.full(len(mesh.vertices), 0.1), "about": {"sigma_median_mm": 0.1}}


def measure(mesh: Mesh, volume: Volume, *, name: str) -> Anatomy:
    """Stands for steps.anatomy."""
    mark = Landmark("head_center", CENTRE_MM, 0.2, "sphere-lsq")
    return Anatomy(name, "left", {"head_center": mark}, {"isb": Pose()}, {"head_radius_mm": 20.0},
                   {"canal": np.zeros((2, 3))}, {"knee_center": "cut off"})  # type: ignore[arg-type] # fmt: skip


def fill(fit: Fit, *, implant: str, params: ToyParams, lattice: Lattice, mesh: recipes.MeshParams) -> dict:
    """Stands for steps.fill: the envelope itself."""
    body = meshing.polygonise(design(fit, params).envelope, mesh.h_mm)
    certificate = {"lattice_porosity_pct": 100 * (lattice.porosity or 0.6), "lattice_pore_size_um": 600.0,
                   "lattice_wall_um": 350.0, "min_wall_mm": 0.35, "trapped_powder_mm3": 0.0}  # fmt: skip
    return {"mesh": body.moved(fit.pose), "certificate": certificate}


def install(monkeypatch) -> None:
    """Puts the toy in place of the registry and of the heavy steps."""
    monkeypatch.setattr(implants, "registry", lambda: {"toy": IMPLANT})
    for name, stand_in in (("load", load), ("bones", bones), ("fill", fill), ("anatomy", measure), ("skin", skin)):
        monkeypatch.setattr(steps, name, stand_in)
    monkeypatch.setattr(steps.dicom, "identity", lambda path: TOKENS)
