"""The viewer draws off screen where it can, and says plainly where it cannot."""

from __future__ import annotations

import subprocess
from pathlib import Path

import fake_run
import numpy as np
import pytest

from implantforge import viewer
from implantforge.core import ImplantForgeError, InputError
from implantforge.viewer import probe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_run.make(tmp_path_factory.mktemp("view") / "fake", part_h_mm=1.5, ct_h_mm=3.0)


def test_refusals_name_what_to_do(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="lateral"):
        viewer.show(run, tmp_path / "x.png", "sideways")
    with pytest.raises(InputError, match="no such run"):
        viewer.show(tmp_path / "nowhere")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(probe.sys, "platform", "linux")
    with pytest.raises(ImplantForgeError, match="--screenshot"):
        viewer.show(run)


@pytest.mark.parametrize("code, output", [(-11, ""), (-6, ""), (1, ""), (0, "OPENGL \n")])
def test_a_crash_of_opengl_becomes_a_message(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, output: str
) -> None:
    fake = subprocess.CompletedProcess([], code, output, "")
    monkeypatch.setattr(probe.subprocess, "run", lambda *a, **k: fake)
    probe.off_screen.cache_clear()
    try:
        with pytest.raises(ImplantForgeError, match="libegl1"):
            viewer.show(run, tmp_path / "x.png")
    finally:
        probe.off_screen.cache_clear()


@pytest.mark.gl
def test_pictures_off_screen(run: Path, tmp_path: Path) -> None:
    if why := probe.off_screen():
        pytest.skip(f"no off-screen OpenGL here: {why}")
    from PIL import Image

    pictures = {}
    for preset, heat in (("anterior", False), ("lateral", True)):
        viewer.show(run, tmp_path / f"{preset}.png", preset, heat=heat)
        pictures[preset] = np.array(Image.open(tmp_path / f"{preset}.png").convert("RGB")).astype(int)
    front, side = pictures["anterior"], pictures["lateral"]
    width = front.shape[1]
    orange = (front[..., 0] > 200) & (abs(front[..., 1] - 150) < 60) & (front[..., 2] < 90)
    assert orange[:, int(width * 0.5) :].sum() > 200, "the implant's outline is on the CT panels"
    assert np.abs(front - side)[:, : width // 2].mean() > 2, "another view and the gap map change the 3D panel"
    red = (side[..., 0] > 110) & (side[..., 1] < 60) & (side[..., 2] < 70)
    assert red[:, : width // 2].sum() > 300, "the bar of the gap map is there"
