"""The verb lattice as a person meets it: files in, a part and its numbers out, and nothing half done left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from click.testing import CliRunner

from implantforge import cli
from implantforge.core import GeometryError, InputError, Lattice
from implantforge.pipeline import filling, moduli, recipe
from implantforge.stages import export, lattice

CUBE = (6.0, 6.0, 6.0)
SHEET = Lattice("gyroid", "sheet", 2.0, wall_mm=0.4)
COARSE = filling.Options(h_mm=0.3)


@pytest.fixture
def cube(tmp_path: Path) -> Path:
    path = tmp_path / "cube.stl"
    trimesh.creation.box(CUBE).export(path)
    return path


def _filled(cube: Path, options: filling.Options = COARSE, **more: object) -> filling.Filled:
    return filling.fill(cube, SHEET, options, **more)  # type: ignore[arg-type]


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "cube.stl")


def test_json_is_one_object_with_what_was_asked_and_got(cube: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = cube.with_name("part.3mf")
    words = ["lattice", str(cube), "--kind", "bcc", "--cell-mm", "2", "--wall-mm", "0.45", "--h-mm", "0.2"]
    with pytest.raises(SystemExit) as end:
        cli.main([*words, "--out", str(out), "--beams", str(cube.with_name("beams.3mf")), "--json", "-q"])
    assert end.value.code == 0
    page = json.loads(capfd.readouterr().out)
    assert page["asked"] == {"wall_mm": 0.45} and page["open_edges"] == 0 and page["dangling_strut_ends"] == 0
    assert page["got"]["wall_mm"] == pytest.approx(0.45, rel=0.05)
    assert export.read_3mf(out).manifold if hasattr(export, "read_3mf") else out.is_file()
    assert _left(cube.parent) == ["beams.3mf", "part.3mf"]


@pytest.mark.parametrize("suffix", [".stl", ".3mf"])
def test_streamed_is_the_same_surface(cube: Path, suffix: str) -> None:
    out = cube.with_name("part" + suffix)
    made = _filled(cube, filling.Options(h_mm=0.3, stream=True), suffix=suffix)
    filling.write(out, made)
    assert made.mesh is None and made.page["streamed"]
    got = trimesh.load(out, force="mesh")
    assert len(got.faces) == made.page["triangles"] and got.is_watertight
    assert got.volume == pytest.approx(made.page["part_volume_mm3"], rel=0.03)


def test_what_breaks_leaves_nothing(cube: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _filled(cube)

    for failure, kind in (
        (OSError(28, "No space left on device"), InputError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):

        def broken(path: Path, mesh: object, failure: BaseException = failure) -> None:
            path.write_bytes(b"half")
            raise failure

        monkeypatch.setattr(export, "write_stl", broken)
        with pytest.raises(kind):
            filling.write(cube.with_name("part.stl"), made)
        assert _left(cube.parent) == []


STRUTS = Lattice("bcc", "strut", 2.0, wall_mm=0.4)


@pytest.mark.parametrize(("suffix", "stream"), [(".stl", True), (".3mf", True)])
def test_ctrl_c_in_the_middle_of_a_stream(cube: Path, suffix: str, stream: bool) -> None:
    """The signal itself, while the file is half written."""
    made = _filled(cube, filling.Options(h_mm=0.3, stream=stream), suffix=suffix)
    seen: list[str] = []

    def halfway(share: float) -> None:
        if share > 0.4 and not seen:
            seen.extend(_left(cube.parent))
            os.kill(os.getpid(), signal.SIGINT)

    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs do not hear it
    try:
        with pytest.raises(KeyboardInterrupt):
            filling.write(cube.with_name("part" + suffix), made, progress=halfway)
    finally:
        signal.signal(signal.SIGINT, heard)
    assert seen and f"part{suffix}" not in seen and _left(cube.parent) == []


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("words", [("part.stl",), ("part.stl", "--stream"), ("part.3mf",), ("part.3mf", "--stream")])
def test_ctrl_c_at_the_terminal(cube: Path, words: tuple[str, ...], sent: signal.Signals) -> None:
    """The verb as a process of its own, stopped while it samples or as soon as it writes."""
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = f"{heard}; from implantforge.cli import main; main()"
    call = [sys.executable, "-c", script, "lattice", cube.name, "--h-mm", "0.03", "--out", *words]
    child = subprocess.Popen(call, cwd=cube.parent, stderr=subprocess.PIPE, text=True)
    began, writes = time.monotonic(), words != ("part.stl",)
    while child.poll() is None and (len(_left(cube.parent)) == 0 if writes else time.monotonic() - began < 6):
        time.sleep(0.02)
    child.send_signal(sent)
    said = child.communicate(timeout=120)[1]
    assert child.returncode in ((130,) if sent == signal.SIGINT else (143, -15)) and "Traceback" not in said
    assert "interrupted" in said or sent == signal.SIGTERM
    assert _left(cube.parent) == []


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of 256 kB."""
    disk = tmp_path_factory.mktemp("disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("suffix", [".stl", ".3mf", ".ply", "stream.stl", "stream.3mf", "beams.3mf"])
def test_a_disk_that_fills_up(cube: Path, small_disk: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before when it shows; one line and nothing left when it fills up in between."""
    asked = STRUTS if "beams" in suffix else SHEET
    options = filling.Options(h_mm=0.15, stream="stream" in suffix)
    made = filling.fill(cube, asked, options, beams="beams" in suffix, suffix="." + suffix.split(".")[-1])
    out = small_disk / f"part{suffix}"
    with pytest.raises(InputError, match="MB free"):
        filling.write(out, made)
    roomy = shutil.disk_usage("/")._replace(free=10**12)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: roomy)
    with pytest.raises(InputError, match=r"could not be written .*nothing is left"):
        filling.write(out, made)
    if "beams" in suffix:
        (small_disk / "fill").write_bytes(bytes(245_000))
        monkeypatch.setattr(filling, "_write_part", lambda fresh, path, made, progress: fresh.write_bytes(b"whole"))
        many = replace(made.coat.net, struts=np.tile(made.coat.net.struts, (400, 1)))  # type: ignore[type-var, union-attr]
        full = replace(made, coat=replace(made.coat, net=many))
        with pytest.raises(InputError, match=r"beams.3mf could not be written .*nothing is left"):
            filling.write(out, full, small_disk / "beams.3mf")
        (small_disk / "fill").unlink()
    assert list(small_disk.iterdir()) == []


def test_refusals_of_the_verb(cube: Path) -> None:
    runner = CliRunner()
    for words, reason in (
        (["--stream", "--out", str(cube.with_name("x.ply"))], "cannot be streamed"),
        (["--wall-mm", "0.3", "--modulus-gpa", "3", "--out", str(cube.with_name("x.stl"))], "not both"),
        (["--beams", str(cube.with_name("b.3mf")), "--out", str(cube.with_name("x.stl"))], "no struts"),
        (["--modulus-gpa", "90", "--out", str(cube.with_name("x.stl"))], "it can have"),
        (["--out", str(cube)], "the shape itself"),
    ):
        found = runner.invoke(cli._cli, ["lattice", str(cube), *words], standalone_mode=False)
        assert reason in str(found.exception), words
    assert _left(cube.parent) == []


def test_shapes_in_other_units_and_files(tmp_path: Path) -> None:
    for name, size, unit in (("a.ply", 6.0, "mm"), ("b.stl", 0.006, "m"), ("c.obj", 0.6, "cm")):
        trimesh.creation.box((size,) * 3).export(tmp_path / name)
        assert filling.read_shape(tmp_path / name, unit, 2.0).volume_mm3 == pytest.approx(216, rel=1e-5)
    with pytest.raises(InputError, match="--unit m"):
        filling.read_shape(tmp_path / "b.stl", "mm", 2.0)
    box = trimesh.creation.box(CUBE)
    trimesh.Trimesh(box.vertices, box.faces[1:]).export(tmp_path / "open.stl")
    with pytest.raises(InputError, match=r"not a closed surface|no whole cell"):
        filling.read_shape(tmp_path / "open.stl", "mm", 0.0)


def test_a_modulus_asked_is_the_modulus_of_the_cell() -> None:
    asked = moduli.of_modulus(Lattice("gyroid", "sheet", 2.5), 12.0)
    assert moduli.modulus_gpa(asked) == pytest.approx(12.0, rel=0.02)
    # the table of sheet gyroids has E/Es = .0702 and .1171 at densities .2 and .3, nearly the same in every direction
    density = float(np.exp(np.interp(np.log(12 / 114), np.log([0.0702, 0.1171]), np.log([0.2, 0.3]))))
    assert 1 - (asked.porosity or 0) == pytest.approx(density, abs=0.015)
    with pytest.raises(GeometryError, match=r"it can have .* GPa"):
        moduli.of_modulus(Lattice("bcc", "strut", 2.5), 100.0)
    with pytest.raises(GeometryError, match="alone"):
        moduli.of_modulus(Lattice("bcc", "strut", 2.5, wall_mm=0.3), 3.0)
    noun = recipe.load("hip_stem", ["lattice.form=sheet", "lattice.modulus_gpa=12"]).lattice_noun
    assert noun.porosity == asked.porosity and lattice.solve(noun).porosity == asked.porosity


def test_certificate_has_stiffness_and_permeability(cube: Path) -> None:
    page = _filled(cube, filling.Options(h_mm=0.3, certificate=True)).page["certificate"]
    assert np.shape(page["tensor_gpa"]) == (6, 6)
    assert page["values"]["wall_median_um"] == pytest.approx(400, rel=0.06)
    assert page["values"]["permeability_1e9_m2"] > 0 and page["errors"]["modulus_x_gpa"] > 0


def test_metal_thinner_than_the_step_is_refused_before_it_is_dust(cube: Path) -> None:
    with pytest.raises(InputError, match=r"falls apart between samples 0\.3 mm apart; give --h-mm 0\.\d"):
        filling.fill(cube, replace(SHEET, wall_mm=None, porosity=0.9), COARSE)


def test_more_triangles_than_any_file_holds_are_refused_at_once(tmp_path: Path) -> None:
    trimesh.creation.box((900.0, 900.0, 900.0)).export(tmp_path / "wall.stl")
    with pytest.raises(InputError, match=r"triangles \(.* GB of STL\); raise --h-mm"):
        filling.fill(tmp_path / "wall.stl", Lattice("gyroid", "sheet", 0.3, wall_mm=0.05), filling.Options(h_mm=0.02))


def test_a_part_that_came_out_in_pieces_or_short_of_metal_fails() -> None:
    page = {"part_volume_mm3": 85.0, "components": 3, "h_mm": 0.1, "designed": {"metal_mm3": 100.0}}
    short, pieces = filling._failed(page, 1)
    assert "85.0 mm3 of 100.0" in short and "in 3 pieces" in pieces
    assert filling._failed({**page, "part_volume_mm3": 97.0}, 3) == []
