"""What every implant of the registry keeps, whoever adds it: parameters that say what they are, closed parts with sourced
checks, the mirrored plan for the mirrored patient and the moved one for the moved."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import drawn_knees
import makers
import numpy as np
import pytest
import test_implants as hips
from scipy.spatial.transform import Rotation

from implantforge import implants
from implantforge.core import Anatomy, Fit, Labels, Landmark, Mesh, Pose
from implantforge.implants import Case, hip_cup, hip_stem, knee_tibial
from implantforge.stages import anatomy, phantoms, segment

EVERY = sorted(implants.registry())
UNITS = {"_mm": "mm", "_deg": "deg", "_hu": "HU", "_pct": "%"}
FLIP = np.array([-1.0, 1.0, 1.0])


@cache
def hip_case() -> Case:
    """The left hip of a phantom: its femur as found in the scan, the other bones as planted."""
    patient = phantoms.hip(hips.SEED, spacing_mm=hips.SPACING_MM)
    case = hips.case_of(patient.volume, segment.bones(patient.volume), "left")
    return hips.whole_case(implants.get("hip_total"), patient, case)


@cache
def knee_case() -> Case:
    """A drawn left knee with its true landmarks."""
    side, meshes, truth = drawn_knees.draw(2)
    return drawn_knees.case(side, meshes, drawn_knees.pages(side, truth))


def case_for(implant: Any) -> Case:
    """The patient of an implant's region."""
    return knee_case() if implant.region == "knee" else hip_case()


@cache
def params_for(name: str) -> Any:
    """The implant's own defaults; a maker's template is our own family written as meshes."""
    implant = implants.get(name)
    if "template" not in implant.Params.model_fields:
        return implant.Params()
    return implant.resolve(implant.Params(template=str(MAKERS[name](Path(tempfile.mkdtemp(prefix="maker"))))))


def _stems(at: Path) -> Path:
    """The body that our own family gives this canal, in widths half a mm apart of which none lies at the overlap limit, as
    ours does: there a hundredth of a mm would choose between two sizes."""
    ours, params, rows = plan_for("hip_stem"), hip_stem.StemParams(), []
    for size, wider in enumerate((-1.25, -0.75, -0.25, 0.25, 0.75), start=1):
        grown = {"width_mm": ours.params["width_mm"] + wider, "length_mm": ours.params["length_mm"] + 3.0 * wider}
        fit = replace(ours, params={**ours.params, **grown})
        head = [ours.params["offset_mm"], 0.0, ours.params["head_height_mm"]]
        rows.append((size, hip_stem.design(fit, params).envelope, {"head": head}))
    return makers.folder(at, "stem", rows)


def _cups(at: Path) -> Path:
    params = hip_cup.CupParams(screw_holes=False)
    fits = [Fit("hip_cup", {"size": size, "side": "left"}, Pose(), {}) for size in hip_cup.SIZES]
    rows = [
        (fit.params["size"], hip_cup.design(fit, params).envelope, {"outer_mm": float(fit.params["size"])})
        for fit in fits
    ]
    return makers.folder(at, "cup", rows)


def _trays(at: Path) -> Path:
    """Both sides in one folder."""
    rows = []
    for side in ("left", "right"):
        for size in (70, 73, 76, 79, 82):
            fit = knee_tibial.blank(side, knee_tibial.TibialParams(size=size))
            fit = replace(fit, params={**fit.params, "keel_length_mm": 30.0})
            rows.append((size, knee_tibial.design(fit, knee_tibial.TibialParams()).envelope, {"side": side}))
    return makers.folder(at, "tray", rows)


MAKERS = {"own_stem": _stems, "own_cup": _cups, "own_tray": _trays}


@cache
def plan_for(name: str) -> Fit:
    """The plan of an implant on its own patient."""
    implant = implants.get(name)
    return implant.plan(case_for(implant), params_for(name))


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A new implant type: one file in the registry's folder."""
    (tmp_path / "peg.py").write_text(hips.TOY, "utf-8")
    monkeypatch.setattr(implants, "__path__", [*implants.__path__, str(tmp_path)])
    yield implants.get("peg")
    sys.modules.pop("implantforge.implants.peg", None)


def says_what_its_parameters_are(implant: Any) -> None:
    """A name, a meaning, a range that holds the default, the unit that the name ends in, and a source where there is one."""
    rows = implants.parameters(implant.Params)
    assert rows
    for row in rows:
        assert row.doc.strip(), row.name
        assert row.tag in ("M", "R", "P"), row.name
        assert row.source.strip() or row.tag == "P", row.name
        unit = next((unit for end, unit in UNITS.items() if row.name.endswith(end)), None)
        assert unit is None or row.unit == unit, row.name
        if (isinstance(row.default, float) or row.unit) and not row.choices:
            assert row.lo is not None and row.hi is not None and row.lo < row.hi, row.name
        if row.default is not None and row.lo is not None and row.hi is not None:
            assert row.lo <= row.default <= row.hi, row.name


def mirrored(case: Case) -> Case:
    """The case in a mirror, sides exchanged: bones are read again where landmarks alone do not tell all."""
    other = "right" if case.side == "left" else "left"

    def named(name: str) -> str:
        bone, _, side = name.rpartition("_")
        return f"{bone}_{'right' if side == 'left' else 'left'}" if side in ("left", "right") else name

    volume = hips.mirrored(case.volume)
    labels = Labels(
        volume.grid,
        np.ascontiguousarray(case.labels.values[::-1]),
        {named(name): number for name, number in case.labels.names.items()},
    )
    bones = {named(name): mesh.mirrored_x() for name, mesh in case.bones.items()}
    pages = {named(name): _page(named(name), page, bones, volume) for name, page in case.anatomy.items()}
    return Case(other, volume, labels, bones, pages)  # type: ignore[arg-type]


def _page(name: str, page: Anatomy, bones: dict[str, Mesh], volume: Any) -> Anatomy:
    if page.frames or page.measures or page.curves:
        return anatomy.examine(name, bones[name], volume)
    side = "right" if page.side == "left" else "left"
    marks = {key: Landmark(key, mark.at_mm * FLIP, mark.sigma_mm, mark.method) for key, mark in page.landmarks.items()}
    return Anatomy(name, side, marks)  # type: ignore[arg-type]


def sizes_of(fit: Fit) -> Any:
    return {key: fit.params[key] for key in ("size", "insert_mm") if key in fit.params}


def mirrors(implant: Any, params: Any, here: Fit, case: Case, within_mm: float, within_deg: float) -> None:
    """Each part's size, place and axis in a mirrored patient are the mirrored ones."""
    there = implant.plan(mirrored(case), params)
    for member in implant.members(params):
        a, b = member.of(here), member.of(there)
        assert sizes_of(a) == sizes_of(b)
        assert np.linalg.norm(b.pose.origin_mm * FLIP - a.pose.origin_mm) < within_mm
        assert _between_deg(b.pose.rotation[:, 2] * FLIP, a.pose.rotation[:, 2]) < within_deg


def moves(implant: Any, params: Any, here: Fit, case: Case, within_mm: float, within_deg: float) -> None:
    """Each part lands where a rigid move takes it."""
    move = Pose(Rotation.from_euler("z", 20.0, degrees=True).as_matrix(), np.array([31.0, -17.0, 250.0]))
    there = implant.plan(hips.carried(case, move), params)
    for member in implant.members(params):
        a, b = member.of(here), member.of(there)
        assert sizes_of(a) == sizes_of(b)
        assert np.linalg.norm(b.pose.origin_mm - move.apply(a.pose.origin_mm)) < within_mm
        assert _between_deg(b.pose.rotation[:, 2], move.rotation @ a.pose.rotation[:, 2]) < within_deg


def _between_deg(a: Any, b: Any) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b, -1.0, 1.0))))


@pytest.mark.parametrize("name", EVERY)
def test_parameters_say_what_they_are(name: str) -> None:
    says_what_its_parameters_are(implants.get(name))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", EVERY)
def test_parts_are_closed_and_checks_sourced(name: str) -> None:
    implant, params = implants.get(name), params_for(name)
    hips.keeps_the_contract(implant, case_for(implant), plan_for(name), params)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", EVERY)
def test_the_mirrored_patient_gets_the_mirrored_plan(name: str) -> None:
    implant = implants.get(name)
    mirrors(implant, params_for(name), plan_for(name), case_for(implant), 1.0, 1.0)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", EVERY)
def test_the_moved_patient_gets_the_moved_plan(name: str) -> None:
    implant = implants.get(name)
    moves(implant, params_for(name), plan_for(name), case_for(implant), 0.7, 0.6)


def test_a_new_implant_of_one_file_keeps_it_all(toy: Any) -> None:
    params = toy.Params()
    says_what_its_parameters_are(toy)
    fit = hips.keeps_the_contract(toy, knee_like(), params=params)
    at = knee_like().anatomy["femur_left"].at("head_center")
    assert fit.pose.origin_mm == pytest.approx(at)
    mirrors(toy, params, fit, knee_like(), 1e-9, 1e-3)
    shifted = Pose(np.eye(3), np.array([5.0, -7.0, 11.0]))
    there = toy.plan(hips.carried(knee_like(), shifted), params)
    assert there.pose.origin_mm == pytest.approx(shifted.apply(at))


def knee_like() -> Case:
    """The drawn leg: its femur has the head that the toy's peg stands in."""
    return replace(knee_case())
