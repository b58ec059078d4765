"""Planned cuts in the report: lines where the planes are, depths at the side they belong to, a table, sentences on top."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fake_run
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from implantforge import report
from implantforge.geom.render import camera
from implantforge.pipeline.runfolder import RunFolder
from implantforge.report import cuts, tables
from implantforge.report.slices import LEVEL_INK

AXES = Rotation.from_rotvec([0.3, -0.5, 0.8]).as_matrix()
AT = np.array([40.0, -12.0, 300.0])


def cut(name: str, off: list[float], normal: list[float], **taken: float) -> dict[str, Any]:
    """A cut in the component's axes, told in patient LPS as a plan tells it."""
    return {"name": name, "kind": "cut plane", "bone": "femur", "frame": "patient LPS mm",
            "point_mm": (AT + AXES @ off).tolist(), "normal": (AXES @ normal).tolist(), **taken}  # fmt: skip


def fit() -> dict[str, Any]:
    rows = [
        cut("femur distal", [3.0, 1.0, 9.0], [0, 0, -1], removed_medial_mm=9.0, removed_lateral_mm=6.25),
        cut("femur posterior", [0.0, 20.0, 24.0], [0, 1, 0], removed_medial_mm=8.0, removed_lateral_mm=8.5),
    ]
    metrics = {"gap_extension_medial_mm": 19.0, "gap_extension_lateral_mm": 21.1, "size": 68.0}
    return {"pose": {"rotation": AXES.tolist(), "origin_mm": AT.tolist()}, "metrics": metrics,
            "params": {"cuts": rows, "told": ["Insert 9 mm.", "Uneven gaps: release the medial side."]}}  # fmt: skip


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_cut_is_drawn_where_its_plane_is(side: str) -> None:
    look, up = cuts.views(AXES, side)["front"]
    eye = camera(AT[None], (look, up), (400, 400), mm_per_px=0.25)
    image = Image.new("RGB", (400, 400))
    lateral = (1.0 if side == "left" else -1.0) * AXES[:, 0]
    cuts.draw(image, eye, cuts.planned(fit()), lateral)
    inked = (np.abs(np.asarray(image).astype(int) - LEVEL_INK).sum(axis=2) < 60)[:, 190:210]
    # 9 mm above the middle; the posterior plane lies in the picture's own plane and is not drawn
    rows = np.flatnonzero(inked.mean(axis=1) > 0.9)
    assert rows.mean() == pytest.approx(200 - 9.0 / 0.25, abs=1.5)
    below = camera(AT[None], cuts.views(AXES, side)["below"], (400, 400), mm_per_px=0.25)
    image = Image.new("RGB", (400, 400))
    cuts.draw(image, below, cuts.planned(fit()), lateral)
    inked = (np.abs(np.asarray(image).astype(int) - LEVEL_INK).sum(axis=2) < 60)[:, 190:210]
    assert np.flatnonzero(inked.mean(axis=1) > 0.9).mean() == pytest.approx(200 + 20.0 / 0.25, abs=1.5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_depths_stand_at_the_side_they_belong_to(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    eye = camera(AT[None], cuts.views(AXES, side)["front"], (400, 400), mm_per_px=0.25)
    sign = 1.0 if side == "left" else -1.0
    seen: dict[str, float] = {}
    monkeypatch.setattr(cuts, "_label", lambda image, at, text, taken: seen.update({text: float(at[0])}))
    cuts.draw(Image.new("RGB", (400, 400)), eye, cuts.planned(fit()), sign * AXES[:, 0])
    # seen from the front, the lateral side of a left knee is on the right
    assert sign * (seen["femur distal 6.2"] - seen["9.0"]) > 100


def test_table_and_summary_tell_the_plan(tmp_path: Path) -> None:
    rows = {row["name"]: row for row in cuts.table(fit())}
    assert rows["Femur distal"]["medial"] == "9.00 mm"
    assert rows["Femur distal"]["off"] == "2.75 mm"
    assert rows["Gap in extension"]["off"] == "−2.10 mm"
    assert "Gap in flexion" not in rows
    assert cuts.table({"metrics": {}}) == []
    (tmp_path / "fit.json").write_text(json.dumps(fit()))
    gaps = [
        {"name": "gap_difference_mm", "unit": "mm", "limit": 0.5},
        {"name": "fit_gap_p95_mm", "unit": "mm", "limit": 1.0},
    ]
    run = RunFolder(tmp_path, {"checks": gaps})
    assert "Uneven gaps: release the medial side." in tables.summary(run)
    assert tables.gap_limit(run) == 1.0
    assert tables.gap_limit(RunFolder(tmp_path, {"checks": gaps[:1]})) is None


def test_a_page_of_cut_bone_has_the_section(tmp_path: Path) -> None:
    folder = fake_run.make(tmp_path / "run", part_h_mm=3.0, ct_h_mm=4.0)
    page = json.loads((folder / "fit.json").read_text())
    page["params"] |= fit()["params"]
    (folder / "fit.json").write_text(json.dumps(page))
    text = report.write(folder).read_text(encoding="utf-8")
    for words in (
        "Cuts and gaps",
        "Insert 9 mm.",
        "Gap to the cut bone",
        "through the medial condyle",
        "component's axes",
    ):
        assert words.replace("'", "&#39;") in text
    assert "Gap to cortex" not in text
