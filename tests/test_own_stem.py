"""A maker's own stem: the parametric one written as meshes must be planned where the parametric one is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest
import test_implants as contract

from implantforge import implants
from implantforge.cli import main
from implantforge.core import FitError, InputError, Mesh, Pose
from implantforge.geom import measure, meshing
from implantforge.implants import Case, hip_stem, own_stem
from implantforge.pipeline import recipe as recipes
from implantforge.stages import phantoms, segment, templates
from implantforge.stages.export import write_3mf, write_stl


@pytest.fixture(scope="module")
def left() -> Case:
    patient = phantoms.hip(contract.SEED, spacing_mm=contract.SPACING_MM)
    return contract.case_of(patient.volume, segment.bones(patient.volume), "left")


@pytest.fixture(scope="module")
def planned(left: Case) -> Any:
    return hip_stem.plan(left, hip_stem.StemParams())


@pytest.fixture(scope="module")
def folder(planned: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planned stem and its neighbours as STL in axes of their own."""
    rows = []
    for step in (-1, 0, 1):
        grown = {"width_mm": planned.params["width_mm"] + step, "length_mm": planned.params["length_mm"] + 3.0 * step}
        params = {**planned.params, **grown}
        made = hip_stem.design(replace(planned, params=params), hip_stem.StemParams())
        head = [params["offset_mm"], 0.0, params["head_height_mm"]]
        rows.append((planned.params["size"] + step, made.envelope, {"head": head}))
    return makers.folder(tmp_path_factory.mktemp("maker"), "stem", rows)


def asked(folder: Path, **more: Any) -> own_stem.OwnStemParams:
    return own_stem.resolve(own_stem.OwnStemParams(template=str(folder), **more))


@pytest.fixture(scope="module")
def fit(left: Case, folder: Path) -> Any:
    return own_stem.plan(left, asked(folder))


def test_the_same_stem_is_found_at_the_same_place(planned: Any, fit: Any) -> None:
    assert fit.params["size"] == planned.params["size"]
    assert fit.params["head_length"] == "M"
    assert fit.metrics["head_error_mm"] < 1.0
    turn = planned.pose.rotation.T @ fit.pose.rotation
    assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) < 1.5
    assert np.linalg.norm(fit.pose.origin_mm - planned.pose.origin_mm) < 1.0
    assert fit.metrics["fill_mid_pct"] == pytest.approx(planned.metrics["fill_mid_pct"], abs=3.0)
    assert [row["rank"] for row in fit.alternatives] == [1, 2, 3]
    assert all(row["why"] for row in fit.alternatives)


def test_its_part_is_the_makers_shape_closed_and_checked(left: Case, folder: Path, fit: Any) -> None:
    params = asked(folder)
    made = own_stem.design(fit, params)
    mesh = meshing.polygonise(made.envelope, 0.8)
    assert measure.is_manifold(mesh) and measure.manifold_status(mesh) == "NoError"
    given = templates.read(folder, "stem").for_side("left", fit.params["size"])[0].mesh
    assert mesh.volume_mm3 == pytest.approx(given.volume_mm3, rel=0.005)
    porous = meshing.polygonise(made.porous, 0.4)
    assert porous.bounds[0, 2] > -45.5 and porous.bounds[1, 2] < -1.0
    for row in own_stem.checks(left, fit, made, mesh.moved(fit.pose), params):
        assert row.source.strip() and row.unit
        assert row.passed or row.severity == "flag", f"{row.name} {row.value} {row.unit}"


def test_a_neck_cut_that_is_given_holds(left: Case, folder: Path, fit: Any) -> None:
    smaller = fit.params["size"] - 1
    given = own_stem.plan(left, asked(folder, size=smaller, resection_above_trochanter_mm=14.0))
    assert given.params["cut_mm"] == 14.0 != fit.params["cut_mm"]
    assert given.reason.startswith(f"size {smaller}, as asked")


def test_no_size_that_fits_is_said_with_numbers(left: Case, folder: Path) -> None:
    with pytest.raises(FitError, match=r"no size of Ours as meshes fits femur_left: the best, size \d+, passes"):
        own_stem.plan(left, asked(folder, overlap_limit_mm=0.0, press_fit_mm=0.0, cortex_mm=5.0))


def test_files_that_change_are_noticed(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    params = asked(copy)
    assert own_stem.resolve(params) == params
    assert params.template_sha256 == asked(folder).template_sha256
    (copy / "template.toml").write_text((copy / "template.toml").read_text().replace("-45.0", "-44.0"))
    with pytest.raises(InputError, match="have changed"):
        own_stem.resolve(params)
    page = {"implant": {"name": "own_stem"}, "lattice": {"porosity": 0.7}}
    with pytest.raises(InputError, match=r"params\.template is missing"):
        wanted = recipes.parse(page, "x")
        implants.one("own_stem").resolve(wanted.params)


def _edit(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "template.toml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


def _mesh(change: Callable[[Mesh], Mesh]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        import trimesh

        path = sorted(folder.glob("*.stl"))[0]
        loaded = trimesh.load(path)
        write_stl(path, change(Mesh(loaded.vertices, loaded.faces)))

    return edit


def _twice(mesh: Mesh) -> Mesh:
    far = Mesh(mesh.vertices * 0.1 + [300.0, 0, 0], mesh.faces)
    return Mesh(np.vstack([mesh.vertices, far.vertices]), np.vstack([mesh.faces, far.faces + len(mesh.vertices)]))


def _across(mesh: Mesh) -> Mesh:
    """A second box through the first, joined to it as one piece: closed, but it crosses itself."""
    vertices = mesh.vertices.copy()
    high = vertices[:, 2] > np.quantile(vertices[:, 2], 0.9)
    vertices[high, 2] = 2 * vertices[high, 2].min() - vertices[high, 2] - 3.0
    return Mesh(vertices, mesh.faces)


def _twin(folder: Path) -> None:
    """The second size called as the first."""
    path = folder / "template.toml"
    numbers = re.findall(r"size = (\d+)", path.read_text())
    path.write_text(path.read_text().replace(f"size = {numbers[1]}\n", f"size = {numbers[0]}\n"))


def _low_head(folder: Path) -> None:
    """The first head 60 mm lower, along the stem."""
    path = folder / "template.toml"
    head = re.search(r"head = \[(.*?)\]", path.read_text())
    assert head
    lower = np.array([float(x) for x in head[1].split(",")]) - 60.0 * makers.TURN.rotation[:, 2]
    path.write_text(path.read_text().replace(head[1], ", ".join(map(str, lower)), 1))


def _as_3mf(folder: Path) -> None:
    """The first size as a 3MF that says it is in inches."""
    import zipfile

    import trimesh

    path = sorted(folder.glob("*.stl"))[0]
    loaded = trimesh.load(path)
    plain, other = folder / "plain.3mf", path.with_suffix(".3mf")
    write_3mf(plain, Mesh(loaded.vertices, loaded.faces), Pose(), {})
    with zipfile.ZipFile(plain) as given, zipfile.ZipFile(other, "w") as made:
        for name in given.namelist():
            made.writestr(name, given.read(name).replace(b'unit="millimeter"', b'unit="inch"'))
    _edit(path.name, other.name)(folder)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_edit('kind = "stem"', 'kind = "spoon"'), "template.toml: kind: 'spoon' is none of stem, cup, tray"),
        (_edit('kind = "stem"', 'kind = "stem"\nside = "up"'), "template.toml: side: .*'left'.* got 'up'"),
        (_edit('kind = "stem"', 'kind = "stem"\nunit = "ell"'), "unit: is none of 'mm', 'cm', 'm' or 'inch', got 'ell'"),
        (_edit('kind = "stem"', 'kind = "stem"\nunit = "m"'), "70-400 mm; check unit"),
        (_edit('kind = "stem"', 'kind = "stem"\ncolour = "red"'), "colour: is no key of a stem's template"),
        (_edit("up = ", "up = [0.0, 1.0] # "), r"frame.up: needs three numbers, .x, y, z."),
        (_edit("up = ", "up = 3 # "), r"frame.up: needs three numbers, .x, y, z., got 3"),
        (_edit("up = ", 'up = [0.0, "a", 1.0] # '), r"frame.up: needs three numbers"),
        (_edit("size = ", "size = 1.5 # "), r"sizes.row 1.size: needs a whole number, got 1.5"),
        (_edit("head = ", "head = [1.0] # "), r"sizes.row 1.head: needs three numbers"),
        (_edit("head = ", "tail = "), r"sizes.row 1.head: is missing|sizes.row 1.tail: is no key"),
        (_edit("from_mm = -45.0", "from_mm = 5.0"), "coat: from_mm = 5 must lie below to_mm = -2"),
        (_edit("up = ", "up = [0.0, 0.3, 1.0] # "), "right angles|must lie|reaches from"),
        (_edit("medial = ", "medial = [0.0, 0.0, 0.0] # "), "right angles"),
        (_edit('file = "s', 'file = "../s'), "outside the template's folder"),
        (_edit('.stl"', '.step"'), "write STEP as STL"),
        (_edit('file = "s', 'file = "t'), "is not in"),
        (_mesh(lambda m: Mesh(m.vertices, m.faces[5:])), "not a closed surface"),
        (_mesh(_twice), "2 pieces"),
        (_mesh(_across), "crosses itself at [0-9]+ triangles"),
        (_mesh(lambda m: Mesh(m.vertices / 1000.0, m.faces)), "check unit"),
        (_mesh(lambda m: Mesh(m.vertices / 10.0, m.faces)), "check unit .unit = 'cm' would fit"),
        (_edit("to_mm = -2.0", "to_mm = -2000.0"), "coat.to_mm: must be -400 or more, got -2000"),
        (_edit('kind = "stem"', 'kind = "stem"\ncut_angle_deg = -5'), "cut_angle_deg: must be 0 or more, got -5"),
        (_edit('kind = "stem"', 'kind = "cup"'), "this is a cup: say `implantforge build own_cup`"),
        (_twin, r"sizes.row 2: size \d+ stands in sizes.row 1 already"),
        (_low_head, r"sizes.row 1.head: lies -[0-9.]+ mm above the neck cut"),
        (_as_3mf, "says it is in inch"),
        (_mesh(lambda m: Mesh(m.vertices, np.vstack([m.faces, m.faces[:3]]))), "not a closed surface"),
        (lambda folder: sorted(folder.glob("*.stl"))[0].write_bytes(b"solid nothing"), "cannot be read|holds no triangle"),
        (lambda folder: (folder / "template.toml").unlink(), "holds no template.toml"),
        (lambda folder: (folder / "template.toml").write_text("name = "), "is not TOML"),
    ],
)  # fmt: skip
def test_a_bad_template_is_refused_by_name(
    folder: Path, tmp_path: Path, spoil: Callable[[Path], None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """At once, before a CT is read, in one line."""
    import shutil

    copy = tmp_path / "maker"
    shutil.copytree(folder, copy)
    spoil(copy)
    with pytest.raises(SystemExit) as ended:
        main(["plan", "own_stem", "--set", f"params.template={copy}", "--out", str(tmp_path / "run"), "--quiet"])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("refused: template: ") and err.count("\n") == 1
    assert re.search(said, err)
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_mesh_inside_out_is_turned(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "maker"
    shutil.copytree(folder, copy)
    _mesh(lambda m: Mesh(m.vertices, m.faces[:, ::-1]))(copy)
    given, turned = (templates.read(where, "stem").sizes[0].mesh for where in (folder, copy))
    assert turned.volume_mm3 == pytest.approx(given.volume_mm3) and turned.volume_mm3 > 0
