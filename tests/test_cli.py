"""The command line keeps its word: exit codes, one JSON object, one clear line, no heavy imports for help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import toy

from implantforge import cli
from implantforge.geom import meshing, shapes
from implantforge.stages import export

HEAVY = ("numpy", "scipy", "numba", "pydantic", "pydicom", "rich", "trimesh", "pyvista", "skimage", "matplotlib")


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs words as a user would, in an empty folder, on the toy implant; gives exit code, stdout, stderr."""
    toy.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    Path("toy.toml").write_text(toy.RECIPE + "[build]\nreport = false\n")
    Path("ct.zip").write_text("voxels")

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as done:
            cli.main(list(words))
        out = capsys.readouterr()
        return int(done.value.code or 0), out.out, out.err

    return run


def one_object(text: str) -> dict:
    page = json.loads(text)
    assert isinstance(page, dict)
    return page


def test_help_imports_nothing_heavy():
    code = f"""
import sys
sys.argv = ["implantforge", *{{words}}]
from implantforge.cli import main
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    # a verb's own help may load the nouns, which are numpy alone
    for words in (["--help"], ["--version"], *([verb, "--help"] for verb in cli.VERBS)):
        done = subprocess.run(
            [sys.executable, "-c", code.replace("{words}", repr(words))], capture_output=True, text=True, timeout=60
        )
        allowed = {"[]"} if len(words) == 1 else {"[]", "['numpy']"}
        assert done.returncode == 0 and done.stderr.strip() in allowed, (words, done.stderr)
        assert done.stdout


def test_every_verb_has_help_with_its_options(call):
    for verb in cli.VERBS:
        code, out, err = call(verb, "--help")
        assert code == 0 and not err and len(out.splitlines()) >= 5, verb
    _, out, _ = call("build", "--help")
    for word in ("--ct", "--out", "--side", "--set", "--json", "default", "mm"):
        assert word in out


def test_build_writes_a_run_and_speaks_json_alone(call):
    code, out, _ = call("build", "toy.toml", "--ct", "ct.zip", "--json")
    page = one_object(out)
    assert code == 0 and page["status"] == "ok" and page["run"] == "run_toy"
    assert json.loads(Path("run_toy/manifest.json").read_text("utf-8"))["metrics"] == page["metrics"]
    code, out, err = call("build", "toy.toml", "--ct", "ct.zip", "--out", "elsewhere", "--quiet")
    assert code == 0 and "elsewhere/part.3mf" in out and "mass_saving_pct" in out and not err


def test_a_failed_check_exits_3_and_is_named(call):
    code, out, _ = call("build", "toy.toml", "--ct", "ct.zip", "--set", "params.limit_mm=20")
    assert code == 3 and "FAILED: peg_length_mm 24 mm, limit <= 20" in out
    code, out, _ = call("build", "toy.toml", "--ct", "ct.zip", "--set", "params.limit_mm=20", "--json")
    assert code == 3 and one_object(out)["status"] == "check_failed"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("build", "nowhere"), "no file or recipe nowhere"),
        (("build", "toy.toml", "--ct", "absent.zip"), "absent.zip does not exist"),
        (("build", "toy.toml", "--ct", "ct.zip", "--set", "params.lenght_mm=3"), "nearest is params.length_mm"),
        (
            ("build", "toy.toml", "--ct", "ct.zip", "--side", "right"),
            "needs the right femur; this scan shows the left femur: say --side left, or give one that also",
        ),
        (("build", "toy.toml", "--ct", "ct.zip", "--side", "middle"), "none of auto, left, right"),
        (("build", "toy.toml", "--ct", "ct.zip", "--out", "toy.toml"), "is a file"),
        (("build",), "Missing argument"),
        (("bild",), "No such command"),
        (("list", "colours"), "colours"),
        (("show", "tyo"), "nearest is toy"),
        (("sample", "elbow", "--out", "s"), "none is called elbow"),
        (("landmarks", "femur_left"), "must look like"),
        (("landmarks", "elbow=f.stl"), "elbow cannot be measured"),
        (("landmarks", "femur_left=f.stl"), "does not exist"),
        (("inspect", "absent"), "does not exist"),
        (("view", "absent"), "is not a run folder"),
    ],
)
def test_refusals_are_one_line_and_exit_2(call, words, expected):
    before = set(os.listdir("."))
    code, out, err = call(*words)
    assert code == 2 and not out and len(err.splitlines()) == 1 and "Traceback" not in err
    assert err.startswith("refused: ") and expected in err
    assert set(os.listdir(".")) == before


def test_refusals_speak_json_when_asked(call):
    code, out, err = call("build", "nowhere", "--json")
    assert code == 2 and one_object(out)["status"] == "refused" and len(err.splitlines()) == 1


def test_a_defect_is_one_line_and_its_log_tells_nothing_of_the_patient(call, monkeypatch):
    def broken(*_, **__):
        raise ValueError("Kovalenko^Olha")

    monkeypatch.setattr("implantforge.pipeline.steps.bones", broken)
    code, out, err = call("build", "toy.toml", "--ct", "ct.zip")
    assert code == 1 and not out and "Traceback" not in err
    line = err.strip().splitlines()[-1]
    log = Path(line.rpartition("call list: ")[2].rstrip(")"))
    text = log.read_text("utf-8")
    log.unlink()
    assert "ValueError" in text and "test_cli.py" in text and "Kovalenko" not in text
    assert not Path("run_toy/manifest.json").exists()


def test_an_interrupt_is_one_line(call, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("implantforge.pipeline.steps.fill", interrupted)
    code, out, err = call("build", "toy.toml", "--ct", "ct.zip", "--quiet")
    assert code == 130 and not out and err.strip().splitlines()[-1].startswith("interrupted")
    assert not Path("run_toy/manifest.json").exists()


def test_a_closed_pipe_is_no_defect():
    script = "import sys; from implantforge.cli import main; main(['list', 'machines'])"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        err = process.stderr.read().decode()
        code = process.wait(60)
    assert code in (0, 141) and "Traceback" not in err and "defect" not in err


def test_plan_ranks_the_alternatives(call):
    code, out, _ = call("plan", "toy.toml", "--ct", "ct.zip", "--out", "p")
    assert code == 0 and out.index("size 3") < out.index("size 2") and "looser" in out
    code, out, _ = call("plan", "toy.toml", "--ct", "ct.zip", "--out", "p", "--json")
    page = one_object(out)
    assert page["fit"]["alternatives"][0]["size"] == 3 and page["status"] == "planned"


def test_list_and_show(call):
    code, out, _ = call("list")
    assert code == 0
    for word in ("toy", "gyroid", "EOS M 290", "Ti-6Al-4V ELI", "hip_stem", "plate_clearance_mm"):
        assert word in out
    _, out, _ = call("list", "machines", "--json")
    assert list(one_object(out)) == ["machines"]
    _, out, _ = call("show", "toy")
    assert "params.length_mm" in out and "10..60" in out and "lattice.cell_mm" in out
    assert "Tags: R read in the source named; M a named standard" in out.splitlines()[-1]
    _, out, _ = call("show", "toy", "--json")
    rows = {row["key"]: row for row in one_object(out)["parameters"]}
    assert rows["params.length_mm"]["unit"] == "mm" and rows["params.size"]["default"] is None


@pytest.mark.parametrize("suffix", [".stl", ".ply", ".obj"])
def test_meshes_are_read_joined_and_in_mm(tmp_path, suffix):
    import trimesh

    from implantforge.cli.reading import read_mesh
    from implantforge.core import InputError

    ball = meshing.polygonise(shapes.sphere([10.0, 20.0, 30.0], 15.0), 3.0)
    path = tmp_path / f"a{suffix}"
    if suffix == ".stl":
        export.write_stl(path, ball)
    else:
        trimesh.Trimesh(ball.vertices, ball.faces, process=False).export(path)
    back = read_mesh(path)
    assert len(back.vertices) == len(ball.vertices) and back.volume_mm3 == pytest.approx(ball.volume_mm3, rel=1e-4)
    trimesh.Trimesh(ball.vertices / 1000, ball.faces, process=False).export(path)
    with pytest.raises(InputError, match="must be mm"):
        read_mesh(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"cannot be read|holds no triangle"):
        read_mesh(path)


def test_landmarks_in_and_out(call, monkeypatch):
    from implantforge.stages import anatomy

    export.write_stl(Path("f.stl"), meshing.polygonise(shapes.sphere([10.0, 20.0, 30.0], 15.0), 3.0))
    monkeypatch.setattr(anatomy, "examine", lambda name, mesh: toy.measure(mesh, None, name=name))  # type: ignore[arg-type]
    code, out, _ = call("landmarks", "femur_left=f.stl", "--json", "--out", "x.mrk.json")
    page = one_object(out)
    assert code == 0 and page["femur_left"]["landmarks"]["head_center"]["at_mm"] == toy.CENTRE_MM.tolist()
    assert {"landmarks", "frames", "measures", "refused"} <= set(page["femur_left"])
    assert json.loads(Path("x.mrk.json").read_text("utf-8"))["markups"][0]["coordinateSystem"] == "LPS"
    code, out, _ = call("landmarks", "femur_left=f.stl")
    assert code == 0 and "head_center" in out and "refused: cut off" in out
