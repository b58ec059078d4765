"""Two parts planned together: one run, whose numbers, checks and files say which part they belong to."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import toy

from implantforge import implants, report
from implantforge.core import Check, Fit, InputError, check
from implantforge.geom import measure
from implantforge.implants import Case, Params, System, mm
from implantforge.pipeline import recipe as recipes
from implantforge.pipeline.build import build
from implantforge.pipeline.runfolder import RunFolder, read_stl
from implantforge.stages import export

CT = Path("ct")
RECIPE = toy.RECIPE.replace('"toy"', '"pair"') + "[params.long]\nlength_mm = 30\n"


class PairParams(Params):
    apart_mm: float = mm(5.0, 0.0, 50.0, "between the pegs", source="toy", tag="P")
    long: toy.ToyParams = toy.ToyParams()
    short: toy.ToyParams = toy.ToyParams(length_mm=16.0, limit_mm=10.0)


def plan(case: Case, params: PairParams) -> Fit:
    fits = {"long": toy.plan(case, params.long), "short": toy.plan(case, params.short)}
    metrics = {"apart_mm": params.apart_mm}
    return Fit("pair", {}, fits["long"].pose, metrics, reason="as asked", parts=fits)


def checks(case: Case, fit: Fit, designs: Any, params: PairParams) -> tuple[Check, ...]:
    assert set(designs) == {"long", "short"}
    return (check("apart_mm", fit.metrics["apart_mm"], "mm", "<=", 9.0, "toy standard"),)


PAIR = System(
    "pair", "Two pegs for tests.", "hip", ("femur_{side}",), PairParams, {"long": toy.IMPLANT, "short": toy.IMPLANT},
    plan, checks, lambda seed: None,
)  # fmt: skip


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    toy.install(monkeypatch)
    known = implants.registry()
    monkeypatch.setattr(implants, "registry", lambda: {**known, "pair": PAIR})
    (tmp_path / "ct").write_text("a scan")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_of_two_parts_keeps_them_apart(folder: Path) -> None:
    wanted = recipes.parse(tomllib.loads(RECIPE), "pair")
    manifest = build(wanted, folder / "run", CT, report=lambda run, page: report.write(run, dict(page)) and None)
    m = manifest["metrics"]
    assert m["apart_mm"] == 5.0
    assert m["part_mass_g"] == pytest.approx(m["long_part_mass_g"] + m["short_part_mass_g"])
    assert m["long_part_mass_g"] > m["short_part_mass_g"]
    assert m["mass_saving_pct"] == pytest.approx(100 * (1 - m["part_mass_g"] / m["solid_equivalent_mass_g"]), abs=1e-5)
    rows = {row["name"]: row["passed"] for row in manifest["checks"]}
    assert len(rows) == len(manifest["checks"])
    assert rows["apart_mm"] and rows["long_peg_length_mm"] and not rows["short_peg_length_mm"]
    assert manifest["status"] == "check_failed"
    assert {row["part"] for row in manifest["machined"]} == {"long", "short"}
    assert set(manifest["parts"]) == {"long", "short"}
    whole = RunFolder(folder / "run").part
    assert whole is not None
    pieces = [read_stl(folder / f"run/parts/{name}.stl") for name in ("long", "short")]
    assert len(whole.faces) == sum(len(one.faces) for one in pieces)
    assert all(measure.is_manifold(one) for one in pieces)
    again = recipes.parse(tomllib.loads((folder / "run/recipe.toml").read_text()), "pair")
    assert again.params == wanted.params and again.params.long.length_mm == 30


def test_both_stand_on_the_plate_without_touching(folder: Path) -> None:
    build(recipes.parse(tomllib.loads(RECIPE), "pair"), folder / "run", CT)
    found = export.reread_3mf(folder / "run/part.3mf")
    assert found.manifold and len(found.transforms) == 2
    spans = []
    for name, matrix in zip(("long", "short"), found.transforms):
        at = read_stl(folder / f"run/parts/{name}.stl").vertices @ matrix[:3] + matrix[3]
        spans.append((at[:, 0].min(), at[:, 0].max()))
        assert at[:, 2].min() == pytest.approx(0.0, abs=1e-3)
    assert spans[1][0] - spans[0][1] == pytest.approx(10.0, abs=1e-2)


def test_the_plan_and_the_page_show_each_part(folder: Path) -> None:
    build(recipes.parse(tomllib.loads(RECIPE), "pair"), folder / "run", CT,
          report=lambda run, page: report.write(run, dict(page)) and None)  # fmt: skip
    fit = json.loads((folder / "run/fit.json").read_text())
    assert set(fit["parts"]) == {"long", "short"}
    assert len(fit["gap_samples"]["points_mm"]) == 4
    page = (folder / "run/report.html").read_text("utf-8")
    assert "Build direction of the long" in page and "Build direction of the short" in page
    assert "Long: End" in page


def test_a_part_that_is_a_system_is_not_one_part(folder: Path) -> None:
    with pytest.raises(InputError, match="made of long, short"):
        implants.one("pair")
    with pytest.raises(InputError, match=r"params\.long\.length_mm = 99.*10\.\.60 mm"):
        recipes.parse(tomllib.loads(RECIPE.replace("= 30", "= 99")), "pair")
