"""Recipes are checked, results remembered, run folders whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import toy

from implantforge.core import Check, Fit, Grid, InputError, Labels, Landmark, Lattice, Mesh, Pose, Volume
from implantforge.pipeline import cache, privacy, recipe, steps
from implantforge.pipeline.build import build
from implantforge.pipeline.cache import Cache
from implantforge.pipeline.run import Run, json_text


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A recipe file, a CT file and a way to build them."""
    toy.install(monkeypatch)
    (tmp_path / "toy.toml").write_text(toy.RECIPE)
    (tmp_path / "ct.zip").write_text("voxels")

    def run(*settings: str, out: str = "run", ct: str = "ct.zip", **more) -> dict:
        wanted = recipe.load(str(tmp_path / "toy.toml"), settings)
        return build(wanted, tmp_path / out, tmp_path / ct, **more)

    run.folder = tmp_path  # type: ignore[attr-defined]
    return run


def cached(manifest: dict) -> dict[str, bool]:
    return {row["name"]: row["cached"] for row in manifest["stages"]}


def tree(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a run but the cache and the manifest's timings."""
    out = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith("cache/"):
            data = path.read_bytes()
            if name == "manifest.json":
                page = json.loads(data)
                page.pop("peak_memory_mb")
                data = json.dumps({**page, "stages": [row["name"] for row in page["stages"]]}).encode()
            out[name] = hashlib.sha256(data).hexdigest()
    return out


# recipe


def refusal(text: str, *settings: str, tmp_path: Path) -> str:
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        recipe.load(str(path), settings)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_recipe_writes_every_default_and_reads_back(bench):
    made = recipe.load(str(bench.folder / "toy.toml"), ["params.length_mm=30", 'build.machine="EOS M 100"'])
    text = made.toml()
    assert "length_mm = 30.0  # mm 10..60 length of the peg" in text and "# size is not set" in text
    (bench.folder / "again.toml").write_text(text)
    again = recipe.load(str(bench.folder / "again.toml"))
    assert again.toml() == text
    assert again.params == made.params and again.build == made.build
    for section in recipe.SECTIONS:
        assert f"[{section}]" in text


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("params.lenght_mm=20", "recipe: unknown key params.lenght_mm, nearest is params.length_mm"),
        ("parms.length_mm=20", "recipe: unknown key parms, nearest is params"),
        ("params.length_mm=900", "recipe: params.length_mm = 900 mm is out of range, allowed is 10..60 mm"),
        ("params.length_mm=nan", "allowed is 10..60 mm"),
        ("params.length_mm='long'", "has the wrong type, needs a number (10..60 mm)"),
        ("params.size=2.5", "needs a whole number (1..9)"),
        ("params.end=sharp", "recipe: params.end = 'sharp' is none of round, flat"),
        ("build.machine=EOS", "is none of"),
        ("case.side=both", "recipe: case.side = 'both' is none of auto, left, right"),
        ("case.date=yesterday", "is not a date"),
        ("length_mm=3", "must look like section.key=value"),
        ("implant.nam='x'", "recipe: unknown key implant.nam, nearest is implant.name"),
        ("implant.name='tpy'", "implant: none is called tpy, nearest is toy"),
    ],
)
def test_recipe_refuses_with_value_unit_and_range(bench, tmp_path, setting, expected):
    assert expected in refusal(toy.RECIPE, setting, tmp_path=tmp_path)


def test_recipe_wall_and_porosity_exclude_each_other(bench, tmp_path):
    both = toy.RECIPE.replace("porosity = 0.7", "porosity = 0.7\nwall_mm = 0.3")
    assert "exactly one" in refusal(both, tmp_path=tmp_path)
    assert "exactly one" in refusal(toy.RECIPE.replace("porosity = 0.7", ""), tmp_path=tmp_path)
    changed = recipe.load(str(bench.folder / "toy.toml"), ["lattice.wall_mm=0.35"])
    assert changed.lattice_noun == Lattice("gyroid", "network", 1.4, 0.35, None)


def test_recipe_not_toml_and_not_found(bench, tmp_path):
    assert "r.toml is not TOML" in refusal("[implant\n", tmp_path=tmp_path)
    with pytest.raises(InputError, match=r"no file or recipe hip_stm, nearest is hip_stem \(known: .*hip_stem"):
        recipe.find("hip_stm")


def test_params_marked_design_do_not_reach_the_plan():
    params = toy.ToyParams(length_mm=30.0, radius_mm=5.0)
    assert params.for_plan() == toy.ToyParams(length_mm=30.0)


# cache


def nouns() -> dict:
    grid = Grid(Pose(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), [1.0, 2, 3]), [0.5, 0.6, 0.7], (2, 3, 4))
    fit = Fit("x", {"size": 3, "style": (1.0, 2.0)}, Pose(), {"gap_mm": 0.1}, ({"size": 2, "why": "loose"},), "best")
    return {
        "volume": Volume(grid, np.arange(24, dtype=np.int16).reshape(2, 3, 4), "ab"),
        "labels": Labels(grid, np.ones((2, 3, 4), np.uint8), {"femur_left": 1}),
        "mesh": Mesh(np.eye(3), np.array([[0, 1, 2]])),
        "anatomy": toy.measure(Mesh(np.eye(3), np.array([[0, 1, 2]])), toy.ball()[0], name="femur_left"),
        "fit": fit,
        "checks": (Check("wall", 0.3, "mm", 0.2, ">=", True, "book", at_mm=(1.0, 2.0, 3.0)),),
        "plain": {"a": [1, 2.5, None, True, "x"], "nan": float("nan"), "array": np.array([1.0, 2.0])},
        "landmark": Landmark("x", np.zeros(3), 0.1, "m"),
    }


def flat(value) -> str:
    arrays: list = []
    page = cache.encode(value, arrays)
    return json.dumps([page, [[a.dtype.str, a.shape, a.tolist()] for a in arrays]])


def test_every_noun_survives_the_cache(tmp_path):
    cache.save(tmp_path / "e", "k", nouns())
    found, value = cache.load(tmp_path / "e", "k")
    assert found and flat(value) == flat(nouns())
    assert [p.name for p in tmp_path.iterdir()] == ["e"]
    assert cache.load(tmp_path / "e", "k", "fit")[1].reason == "best"


def test_objects_are_not_stored(tmp_path):
    for bad in (np.array([object()]), {1: 2}, {1, 2}, toy.IMPLANT):
        with pytest.raises(TypeError):
            cache.save(tmp_path / "e", "k", bad)
    assert not list(tmp_path.iterdir())


def double(x, *, by: float) -> dict:
    double.calls += 1  # type: ignore[attr-defined]
    return {"array": np.full(10, x * by), "note": "n"}


def total(x, *, plus: float) -> float:
    return float(np.sum(x) + plus)


def run_twice(folder: Path, by: float = 2.0, plus: float = 0.0):
    store = Cache(folder)
    first = store.call("double", double, 3.0, by=by)
    return store, first, store.call("total", total, first["array"], plus=plus)


def test_cache_recomputes_only_what_depends_on_a_change(tmp_path):
    double.calls = 0  # type: ignore[attr-defined]
    for by, plus, expected in (
        (2.0, 0.0, [False, False]), (2.0, 0.0, [True, True]), (2.0, 5.0, [True, False]), (4.0, 5.0, [False, False])
    ):  # fmt: skip
        store, _, result = run_twice(tmp_path, by, plus)
        assert [row.cached for row in store.stages] == expected
        assert result.value == 30.0 * by + plus
    assert double.calls == 2  # type: ignore[attr-defined]


def test_an_unneeded_result_is_not_read(tmp_path):
    _, first, _ = run_twice(tmp_path)
    entry = next(tmp_path.glob("double-*"))
    (entry / "0.npy").unlink()
    store, first, result = run_twice(tmp_path)
    assert result.value == 60.0 and first["note"].value == "n"
    assert [row.cached for row in store.stages] == [True, True]


@pytest.mark.parametrize("damage", ["flip", "cut", "json", "swap", "gone"])
def test_a_damaged_entry_is_computed_again(tmp_path, damage):
    run_twice(tmp_path)
    entry = next(tmp_path.glob("double-*"))
    data = bytearray((entry / "0.npy").read_bytes())
    if damage == "flip":
        data[-3] ^= 1
        (entry / "0.npy").write_bytes(data)
    elif damage == "cut":
        (entry / "0.npy").write_bytes(data[:-8])
    elif damage == "json":
        (entry / "value.json").write_text((entry / "value.json").read_text("utf-8").replace('"n"', '"m"'))
    elif damage == "swap":
        np.save(entry / "0.npy", np.array([{}], dtype=object), allow_pickle=True)
    else:
        (entry / "0.npy").unlink()
    store, first, _ = run_twice(tmp_path)
    assert first.value["array"].tolist() == [6.0] * 10 and first.value["note"] == "n"
    assert not store.stages[0].cached
    assert run_twice(tmp_path)[0].stages[0].cached


def test_prune_keeps_what_the_last_run_used(tmp_path):
    run_twice(tmp_path, 2.0)
    store, _, _ = run_twice(tmp_path, 4.0)
    assert len(list(tmp_path.iterdir())) == 4
    store.prune()
    assert {p.name for p in tmp_path.iterdir()} == store.used


# build


def test_a_run_folder_holds_what_the_manifest_says(bench):
    manifest = bench()
    run = bench.folder / "run"
    on_disk = json.loads((run / "manifest.json").read_text("utf-8"))
    assert on_disk["status"] == "ok" and on_disk["implant"] == "toy" and on_disk["side"] == "left"
    names = {row["path"] for row in on_disk["files"]}
    assert names == {
        "recipe.toml", "labels.seg.nrrd", "bones/femur_left.ply", "bones/femur_left.stl",
        "anatomy.json", "landmarks.mrk.json", "fit.json",
        "ct.nrrd", "part.stl", "part.3mf",
    }  # fmt: skip
    for row in on_disk["files"]:
        data = (run / row["path"]).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (row["sha256"], row["bytes"])
    wanted = {"part_volume_mm3", "part_mass_g", "solid_equivalent_mass_g", "mass_saving_pct", "lattice_porosity_pct",
              "lattice_pore_size_um", "lattice_wall_um", "triangles", "bone_overlap_mm3", "size", "fit_gap_mean_mm",
              "contact_pct"}  # fmt: skip
    assert wanted <= set(on_disk["metrics"])
    assert abs(manifest["metrics"]["part_volume_mm3"] - np.pi * 16 * (24 + 16 / 3)) < 30.0
    assert {"name", "value", "unit", "limit", "passed", "source"} <= set(on_disk["checks"][0])
    assert all(row["source"] for row in on_disk["checks"])
    assert {"name", "value", "unit", "tag", "source"} == set(on_disk["assumptions"][0])
    assert on_disk["part"]["frame"] == "LPS mm" and len(on_disk["part"]["build_direction"]) == 3
    assert on_disk["machined"][0]["stock_mm"] == 0.5
    fit = json.loads((run / "fit.json").read_text("utf-8"))
    assert fit["gap_samples"]["gap_mm"] == [0.5, -0.1] and "gap_samples" not in fit["params"]
    assert fit["alternatives"][0]["why"] == "fills best"
    anatomy = json.loads((run / "anatomy.json").read_text("utf-8"))["femur_left"]
    assert anatomy["landmarks"]["head_center"]["at_mm"] == toy.CENTRE_MM.tolist() and anatomy["refused"]


def test_the_same_build_twice_computes_and_writes_nothing(bench):
    bench()
    before = {
        p: p.stat().st_mtime_ns for p in (bench.folder / "run").rglob("*") if p.is_file() and "cache" not in p.parts
    }
    first = tree(bench.folder / "run")
    again = bench()
    assert all(cached(again).values())
    assert tree(bench.folder / "run") == first
    changed = {p.name for p, stamp in before.items() if p.stat().st_mtime_ns != stamp}
    assert changed <= {"manifest.json"}


def test_two_folders_hold_the_same_bytes(bench):
    bench(out="one")
    bench(out="two")
    assert tree(bench.folder / "one") == tree(bench.folder / "two")


@pytest.mark.parametrize(
    ("setting", "recomputed"),
    [
        ("lattice.cell_mm=1.2", {"lattice", "verify"}),
        ("mesh.h_mm=0.9", {"lattice", "verify", "export"}),
        ("params.radius_mm=5", {"envelope", "lattice", "orient", "verify", "export"}),
        ("params.length_mm=30", {"plan", "envelope", "lattice", "orient", "verify", "export"}),
        ("build.machine='SLM 280'", {"orient", "verify", "export"}),
        ("build.material='Ti-6Al-4V'", {"verify", "export"}),
    ],
)
def test_one_edited_value_recomputes_only_what_depends_on_it(bench, setting, recomputed):
    bench()
    again = cached(bench(setting))
    assert {name for name, was in again.items() if not was} == recomputed | {"export"}
    assert again["load"] and again["segment"] and again["surface femur_left"]


def test_edited_voxels_recompute_everything_and_a_renamed_file_nothing(bench):
    bench()
    (bench.folder / "ct.zip").rename(bench.folder / "other.zip")
    assert all(cached(bench(ct="other.zip")).values())
    (bench.folder / "other.zip").write_text("other voxels")
    assert not any(was for name, was in cached(bench(ct="other.zip")).items() if name != "export")


def test_a_damaged_output_is_written_again(bench):
    bench()
    first = tree(bench.folder / "run")
    path = bench.folder / "run" / "part.stl"
    path.write_bytes(path.read_bytes()[:-1])
    (bench.folder / "run" / "fit.json").unlink()
    assert not cached(bench())["export"]
    assert tree(bench.folder / "run") == first


def test_cache_may_be_deleted_at_any_time(bench):
    import shutil

    bench()
    first = tree(bench.folder / "run")
    shutil.rmtree(bench.folder / "run" / "cache")
    assert not cached(bench())["plan"]
    assert tree(bench.folder / "run") == first


def test_plan_stops_at_the_fit_and_a_build_goes_on_from_it(bench):
    manifest = bench(upto="plan")
    assert manifest["status"] == "planned" and not (bench.folder / "run" / "part.stl").exists()
    again = cached(bench())
    assert again["plan"] and not again["lattice"]
    with pytest.raises(InputError, match="holds a built part"):
        bench(upto="plan")
    assert (bench.folder / "run" / "part.stl").exists()


def test_a_failed_check_is_a_value(bench):
    manifest = bench("params.limit_mm=20")
    assert manifest["status"] == "check_failed"
    row = next(row for row in manifest["checks"] if row["name"] == "peg_length_mm")
    assert (row["value"], row["limit"], row["passed"], row["sense"]) == (24.0, 20.0, False, "<=")


# refusals, interruptions, locks


def test_refused_input_leaves_nothing(bench):
    (bench.folder / "bad.zip").write_text("REFUSE")
    for ct in ("bad.zip", "absent.zip"):
        with pytest.raises(InputError):
            bench(ct=ct)
        assert not (bench.folder / "run").exists()
    with pytest.raises(InputError, match="toy: needs the right femur; this scan shows the left femur: say --side left"):
        bench("case.side='right'")
    assert not (bench.folder / "run").exists()


def test_refused_input_leaves_a_finished_run_alone(bench):
    bench()
    first = tree(bench.folder / "run")
    (bench.folder / "bad.zip").write_text("REFUSE")
    with pytest.raises(InputError):
        bench(ct="bad.zip")
    assert tree(bench.folder / "run") == first


def test_an_interrupted_build_never_looks_finished_and_can_go_on(bench, monkeypatch):
    bench()
    first = tree(bench.folder / "run")

    def interrupted(path, *rest, **more):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("implantforge.stages.export.write_bodies", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bench("params.radius_mm=5")
    run = bench.folder / "run"
    assert not (run / "manifest.json").exists()
    assert (run / "part.3mf").read_bytes() != b"half"
    assert not list(run.rglob("*.part")) and not (run / "cache" / "tmp").exists()
    again = bench("params.radius_mm=5")
    assert cached(again)["lattice"] and (run / "manifest.json").exists()
    bench()
    assert tree(run) == first


def test_interrupt_before_any_file_leaves_the_old_run(bench, monkeypatch):
    bench()
    first = tree(bench.folder / "run")

    def interrupted(*args, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(steps, "fill", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bench("params.radius_mm=5")
    assert tree(bench.folder / "run") == first


def test_two_builds_in_one_folder_are_refused(bench):
    bench()
    with Run(bench.folder / "run"), pytest.raises(InputError, match="another build"):
        bench()
    assert bench()["status"] == "ok"


def test_a_folder_with_other_files_is_refused_untouched(bench):
    (bench.folder / "run").mkdir()
    (bench.folder / "run" / "thesis.doc").write_text("x")
    with pytest.raises(InputError, match=r"holds other files \(thesis.doc\)"):
        bench()
    assert [p.name for p in (bench.folder / "run").iterdir()] == ["thesis.doc"]
    (bench.folder / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        bench(out="file")


def test_report_reads_files_already_there_and_is_kept(bench):
    seen = []

    def report(folder: Path, manifest) -> None:
        assert (folder / "part.stl").is_file() and not (folder / "manifest.json").exists()
        seen.append(manifest["status"])
        (folder / "report.html").write_text("<html>ok</html>")

    manifest = bench(report=report)
    assert seen == ["ok"] and "report.html" in {row["path"] for row in manifest["files"]}
    assert cached(bench(report=report))["report"] and seen == ["ok"]
    bench("build.report=false", report=report)
    assert not (bench.folder / "run" / "report.html").exists()


# numbers and privacy


def test_json_is_rounded_finite_and_stable():
    text = json_text({"a": 0.1 + 0.2, "b": float("nan"), "c": np.float32(1) / 3, "d": (np.int64(2), True), "e": -0.0})
    assert json.loads(text) == {"a": 0.3, "b": None, "c": 0.333333343, "d": [2, True], "e": 0.0}
    assert "-0" not in text


def test_a_run_is_clean_of_the_patient(bench):
    bench()
    privacy.assert_clean(bench.folder / "run", toy.TOKENS)


@pytest.mark.parametrize("token", toy.TOKENS)
@pytest.mark.parametrize("place", ["json", "zip", "gz", "stl", "name"])
def test_the_scan_finds_what_was_planted(tmp_path, token, place):
    text = f"x {token.replace('^', ' ').upper()} y".encode()
    if place == "json":
        (tmp_path / "a.json").write_bytes(text)
    elif place == "zip":
        with zipfile.ZipFile(tmp_path / "a.3mf", "w", zipfile.ZIP_DEFLATED) as box:
            box.writestr("3D/3dmodel.model", b"<x>" * 500 + text)
    elif place == "gz":
        (tmp_path / "a.nrrd").write_bytes(b"NRRD0005\ntype: int16\n\n" + gzip.compress(b"\0" * 9000 + text))
    elif place == "stl":
        (tmp_path / "a.stl").write_bytes(text.ljust(84) + bytes(500))
    else:
        (tmp_path / f"a {token.replace('^', ' ')}.txt").write_text("")
    with pytest.raises(InputError, match="privacy") as caught:
        privacy.assert_clean(tmp_path, toy.TOKENS)
    assert token not in str(caught.value) and "Kovalenko" not in str(caught.value)


def test_the_input_is_not_named_in_the_run(bench):
    (bench.folder / "ct.zip").rename(bench.folder / "CT.Kovalenko.Olha.zip")
    manifest = bench(ct="CT.Kovalenko.Olha.zip")
    assert [row["path"] for row in manifest["inputs"]] == ["ct.zip"]


def test_common_words_and_chance_bytes_are_no_hit(tmp_path):
    (tmp_path / "a.json").write_text('{"note": "Young\'s modulus of the left stem"}')
    (tmp_path / "b.npy").write_bytes(np.random.default_rng(0).bytes(1 << 20))
    privacy.assert_clean(tmp_path, ("Young^Left", "Stem"))
    with pytest.raises(InputError):
        (tmp_path / "c.txt").write_text("young left")
        privacy.assert_clean(tmp_path, ("Young^Left",))


def test_a_build_that_would_leak_is_not_finished(bench, monkeypatch):
    monkeypatch.setattr(steps.dicom, "identity", lambda path: ("femur_left.head_center",))
    with pytest.raises(InputError, match="privacy"):
        bench()
    assert not (bench.folder / "run").exists()
