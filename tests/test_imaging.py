"""CT to labelled bones and surfaces, as a user does it: files out, files back in, the same twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from implantforge import cli
from implantforge.core import Grid, Labels, Pose, Volume
from implantforge.pipeline import doubts
from implantforge.stages import labels as label_files
from implantforge.stages import phantoms
from implantforge.stages.meshfile import read_ply

BONES = {"femur_left", "tibia_left", "fibula_left", "patella_left"}


@pytest.fixture(scope="module")
def knee(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, phantoms.Phantom]:
    """A left knee as DICOM, and its truth."""
    folder = tmp_path_factory.mktemp("knee")
    made = phantoms.knee(2, spacing_mm=(1.0, 1.0, 1.0))
    phantoms.write(made, folder)
    return folder / "ct", made


def run(capsys: pytest.CaptureFixture, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        cli.main([*words, "--quiet"])
    out = capsys.readouterr()
    return int(done.value.code or 0), out.out, out.err


@pytest.fixture(scope="module")
def meshed(knee, tmp_path_factory) -> Path:
    """Output of `mesh` with PLY surfaces, and a label map from `segment` beside it."""
    folder = tmp_path_factory.mktemp("meshed")
    for words in (["mesh", str(knee[0]), "--out", str(folder / "m"), "--format", "ply", "--picture", str(folder / "m.png")],
                  ["segment", str(knee[0]), "--out", str(folder / "l.seg.nrrd")]):  # fmt: skip
        with pytest.raises(SystemExit) as done:
            cli.main([*words, "--quiet"])
        assert not done.value.code
    return folder


def dice(one: Labels, two: Labels, name: str) -> float:
    a, b = one.mask(name), two.mask(name)
    return float(2.0 * (a & b).sum() / (a.sum() + b.sum()))


def test_labels_follow_the_surfaces(knee, meshed: Path) -> None:
    found = label_files.read(meshed / "l.seg.nrrd")
    assert set(found.names) == BONES
    for name in ("femur_left", "tibia_left"):
        assert dice(found, knee[1].labels, name) > 0.98
    for name in BONES:
        assert dice(found, knee[1].labels, name) > 0.95


def test_meshes_say_what_they_are(knee, meshed: Path) -> None:
    page = json.loads((meshed / "m" / "mesh.json").read_text())
    assert set(page["meshes"]) == BONES
    for name, row in page["meshes"].items():
        mesh, sigma = read_ply(meshed / "m" / row["file"])
        assert sigma is not None
        assert np.median(sigma) == pytest.approx(row["sigma_median_mm"], abs=1e-3)
        assert mesh.volume_mm3 == pytest.approx(row["volume_mm3"], rel=1e-4)
        assert row["watertight"]
        assert row["simplification_bound_mm"] <= 0.03
        body = trimesh.load(meshed / "m" / row["file"], process=False)  # an independent reader
        assert body.is_watertight, name
        true = knee[1].meshes[name]
        top, bottom = knee[1].volume.grid.to_patient(np.array([[0, 0, 0], np.array(knee[1].volume.hu.shape) - 1.0]))[
            :, 2
        ]
        inner = (mesh.vertices[:, 2] > min(top, bottom) + 4) & (mesh.vertices[:, 2] < max(top, bottom) - 4)
        surface = trimesh.Trimesh(true.vertices, true.faces, process=False)
        samples, face = trimesh.sample.sample_surface(surface, 200_000, seed=0)
        at = mesh.vertices[inner]
        near = cKDTree(samples).query(at)[1]
        off = np.abs(np.einsum("ij,ij->i", at - samples[near], surface.face_normals[face[near]]))
        assert off.mean() < 0.15, name
    assert (meshed / "m.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("suffix", [".nii.gz", ".dcm"])
def test_a_label_map_comes_back_in_place_of_our_own(knee, meshed: Path, suffix: str, tmp_path: Path, capsys) -> None:
    from implantforge.pipeline import imaging

    found = label_files.read(meshed / "l.seg.nrrd")
    imaging.write_labels(found, tmp_path / f"given{suffix}")
    code, out, err = run(capsys, "mesh", str(knee[0]), "--labels", str(tmp_path / f"given{suffix}"),
                         "--out", str(tmp_path / "m"), "--json")  # fmt: skip
    assert code == 0, err
    page = json.loads(out)
    assert set(page["bones"]) == BONES
    ours = json.loads((meshed / "m" / "mesh.json").read_text())["meshes"]
    for name in BONES:
        assert page["bones"][name]["volume_mm3"] == pytest.approx(ours[name]["volume_mm3"], rel=0.01)
        assert (tmp_path / "m" / f"{name}.stl").is_file()


def test_the_same_scan_gives_the_same_bytes(knee, meshed: Path, tmp_path: Path, capsys) -> None:
    code, _, err = run(capsys, "segment", str(knee[0]), "--out", str(tmp_path / "l.seg.nrrd"))
    assert code == 0, err
    assert (tmp_path / "l.seg.nrrd").read_bytes() == (meshed / "l.seg.nrrd").read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["segment", "CT", "--out", "x.png"], "x.png"),
        (["segment", "CT", "--out", "nowhere/x.nii.gz"], "nowhere"),
        (["segment", "missing", "--out", "x.nii.gz"], "missing does not exist"),
        (["segment", "CT", "--out", "x.nii.gz", "--region", "hip"], "no femur"),
        (["segment", "CT", "--out", "x.nii.gz", "--picture", "x.jpg"], ".png"),
        (["mesh", "CT", "--labels", "missing.nrrd", "--out", "m"], "missing.nrrd does not exist"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(knee, words, said, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *[str(knee[0]) if word == "CT" else word for word in words])
    assert code == 2
    assert err.count("\n") == 1 and said in err
    assert not out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("harm", ["mirrored", "shifted"])
def test_labels_that_do_not_fit_the_scan_are_not_meshed_in_silence(knee, meshed: Path, harm, tmp_path, capsys) -> None:
    from implantforge.pipeline import imaging

    found = label_files.read(meshed / "l.seg.nrrd")
    values = found.values[::-1].copy() if harm == "mirrored" else np.roll(found.values, 5, axis=0)
    imaging.write_labels(Labels(found.grid, values, found.names), tmp_path / "bad.nii.gz")
    code, out, err = run(
        capsys, "mesh", str(knee[0]), "--labels", str(tmp_path / "bad.nii.gz"), "--out", str(tmp_path / "m")
    )
    if harm == "mirrored":
        assert code == 2 and "no bone edge" in err
        assert not (tmp_path / "m").exists()
    else:
        assert (code == 2 and "no bone edge" in err) or "look: " in out


def test_the_command_line_repeats_no_default_of_its_own() -> None:
    """--help must load nothing heavy, so the words stand there again: held to the stages' own values."""
    from implantforge.cli import imaging
    from implantforge.stages import segment, surface

    simplify = next(option for option in imaging.mesh_.params if option.name == "simplify_mm")
    assert simplify.default == surface.SIMPLIFY_MM
    assert imaging._REGIONS == segment.REGIONS


def test_a_label_that_ends_inside_the_bone_is_named() -> None:
    shape = (40, 40, 60)
    x, y, _ = np.indices(shape)
    rod = np.hypot(x - 20, y - 20) < 8
    rod[:, :, 50:] = False
    grid = Grid(Pose(np.eye(3), np.zeros(3)), np.ones(3), shape)
    volume = Volume(grid, np.where(rod, 900, 40).astype(np.int16))
    whole, short, shared = rod.astype(np.uint8), rod.astype(np.uint8), rod.astype(np.uint8)
    short[:, :, 35:] = 0
    shared[:, :, 35:] *= 2
    assert doubts.cut_short(Labels(grid, whole, {"femur_left": 1}), volume) == []
    assert doubts.cut_short(Labels(grid, shared, {"femur_left": 1, "hip_left": 2}), volume) == []
    (said,) = doubts.cut_short(Labels(grid, short, {"femur_left": 1}), volume)
    assert "femur_left" in said
    assert "towards head" in said
