"""The report says what the run holds, says what is missing, and gives the same bytes twice."""

from __future__ import annotations

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import fake_run
import numpy as np
import pytest
from numpy.typing import NDArray

from implantforge.core import GeometryError, Grid, InputError, Mesh, Pose, Volume
from implantforge.geom import render, viewing
from implantforge.geom.sections import section
from implantforge.pipeline.runfolder import RunFolder, read_stl
from implantforge.stages.labels import read_volume


def sphere(radius: float, centre: tuple[float, float, float] = (0, 0, 0)) -> Mesh:
    import trimesh

    ball = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return Mesh(ball.vertices + np.array(centre), ball.faces)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_run.make(tmp_path_factory.mktemp("run") / "fake", status="check_failed", ct_h_mm=2.0)


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    from implantforge import report

    return report.write(run).read_text(encoding="utf-8")


def dark(image: NDArray) -> NDArray:
    return image.astype(int).sum(axis=2) < 740


class TestRender:
    def test_a_ball_covers_its_disc(self) -> None:
        ball = sphere(20.0)
        eye = render.camera([ball], "anterior", 200, margin=0.1)
        image = render.render([(ball, (0.7, 0.7, 0.7), 1.0, None)], eye)
        assert dark(image).sum() * eye.mm_per_px**2 == pytest.approx(np.pi * 400, rel=0.02)

    @pytest.mark.parametrize(
        "view, side, letters",
        [
            ("anterior", None, "RLSI"),
            ("posterior", None, "LRSI"),
            ("left", None, "APSI"),
            ("lateral", "left", "APSI"),
            ("medial", "left", "PASI"),
            ("lateral", "right", "PASI"),
            ("inferior", None, "RLAP"),
            ("superior", None, "LRAP"),
        ],
    )
    def test_letters_are_where_the_patient_has_them(self, view: str, side: str | None, letters: str) -> None:
        eye = render.camera(np.zeros((1, 3)), view, 100, side=side, mm_per_px=1.0)
        assert "".join(eye.letters) == letters
        for letter, at in zip("LPS", np.eye(3) * 30):
            if letter in letters:
                x, y = eye.to_pixel(at)[0] - 50
                assert {0: x < -29, 1: x > 29, 2: y < -29, 3: y > 29}[letters.index(letter)]

    def test_nearer_hides_farther_and_glass_shows_both(self) -> None:
        near, far = sphere(5, (0, -20, 0)), sphere(5, (0, 20, 0))
        eye = render.camera([near, far], "anterior", 60)
        red, blue = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
        opaque = render.render([(near, red, 1, None), (far, blue, 1, None)], eye, occlusion_mm=0)[30, 30].astype(int)
        glass = render.render([(near, red, 0.3, None), (far, blue, 1, None)], eye, occlusion_mm=0)[30, 30].astype(int)
        assert opaque[0] > 3 * opaque[2]
        assert glass[2] > 60 and glass[0] > 60

    def test_paint_by_function_and_by_vertex_agree(self) -> None:
        ball = sphere(10)
        eye = render.camera([ball], "left", 80)
        ramp = lambda p: np.clip((p + 10) / 20, 0, 1)  # noqa: E731
        a = render.render([(ball, (1, 1, 1), 1, ramp)], eye, occlusion_mm=0).astype(int)
        b = render.render([(ball, (1, 1, 1), 1, ramp(ball.vertices))], eye, occlusion_mm=0).astype(int)
        assert np.abs(a - b).max() <= 2

    def test_unknown_view_and_absent_embree_are_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(GeometryError, match="anterior"):
            render.camera(np.zeros((1, 3)), "sideways")
        monkeypatch.setitem(sys.modules, "embreex", None)
        with pytest.raises(GeometryError, match="embreex"):
            render.render([(sphere(3), (1, 1, 1), 1, None)], size=20)


class TestSection:
    def test_outline_of_a_ball_is_its_circle(self) -> None:
        pieces = section(sphere(10, (1, 2, 3)), np.array([0, 0, 9.0]), np.array([0, 0, 1.0]))[0]
        radius = np.hypot(pieces[..., 0] - 1, pieces[..., 1] - 2)
        assert np.abs(radius - 8).max() < 0.03
        assert np.linalg.norm(pieces[:, 0] - pieces[:, 1], axis=1).sum() == pytest.approx(16 * np.pi, rel=2e-3)
        assert len(section(sphere(10), np.array([0, 0, 11.0]), np.array([0, 0, 1.0]))[0]) == 0

    def test_plane_shows_linear_hu_exactly_and_outside_as_nan(self) -> None:
        turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
        grid = Grid(Pose(turn, np.array([5.0, -3, 2])), np.array([1.0, 2.0, 1.5]), (40, 20, 30))
        index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1).reshape(-1, 3)
        slope = np.array([3.0, -7.0, 5.0])
        hu = (grid.to_patient(index) @ slope).round().astype(np.int16).reshape(grid.shape)
        centre = grid.to_patient(np.array([[20, 10, 15.0]]))[0]
        got = viewing.plane_hu(Volume(grid, hu), centre, np.array([1.0, 0, 0]), np.array([0, 0, 1.0]), 0.5, (20, 30))
        x, y = (np.arange(30) - 14.5) * 0.5, (9.5 - np.arange(20)) * 0.5
        assert np.abs(got - (centre @ slope + x * 3 + y[:, None] * 5)).max() <= 1.0
        far = viewing.plane_hu(
            Volume(grid, hu), centre + np.array([500, 0, 0]), np.array([1.0, 0, 0]), np.array([0, 0, 1.0]), 1, (4, 4)
        )
        assert np.isnan(far).all()

    def test_gap_map_keeps_samples_and_knows_its_reach(self) -> None:
        points = np.random.default_rng(0).uniform(-10, 10, (500, 3))
        gaps = viewing.gap_map(points, points[:, 0])
        assert np.allclose(gaps(points), points[:, 0], atol=0.02)
        assert np.isnan(gaps(np.array([[60.0, 0, 0]]))).all()
        with pytest.raises(GeometryError):
            viewing.gap_map(np.empty((0, 3)), np.empty(0))

    def test_own_plane_of_a_long_part(self) -> None:
        flat = np.random.default_rng(1).uniform(-1, 1, (4000, 3)) * [20, 3, 90]
        angle = np.radians(20)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        found = viewing.own_plane(Mesh(flat @ turn.T, [[0, 1, 2]]))
        assert found is not None
        assert found[0] @ turn[:, 1] > 0.99 and found[1][2] > 0.99
        assert viewing.own_plane(sphere(20)) is None


class TestRunFolder:
    def test_stl_comes_back_closed_and_lps_is_kept(self, run: Path) -> None:
        bone = read_stl(run / "bones/femur_left.stl")
        edges = np.sort(bone.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
        assert bone.volume_mm3 > 1e5
        head = fake_run.pose().apply(fake_run.HEAD_MM)
        assert (bone.bounds[0] < head).all() and (bone.bounds[1] > head).all()

    def test_ras_and_left_handed_nrrd_show_the_same_patient(self, tmp_path: Path) -> None:
        import nrrd

        data = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
        plain = {
            "space": "left-posterior-superior",
            "space directions": np.diag([1.0, 2, 3]),
            "space origin": [10, 20, 30],
        }
        ras = {
            "space": "right-anterior-superior",
            "space directions": np.diag([-1.0, -2, 3]),
            "space origin": [-10, -20, 30],
        }
        flipped = {**plain, "space directions": np.diag([-1.0, 2, 3]), "space origin": [11, 20, 30]}
        for name, header, values in (("a", plain, data), ("b", ras, data), ("c", flipped, data[::-1])):
            nrrd.write(str(tmp_path / f"{name}.nrrd"), np.ascontiguousarray(values), header)
        want = read_volume(tmp_path / "a.nrrd")
        for name in "bc":
            got = read_volume(tmp_path / f"{name}.nrrd")
            assert np.array_equal(got.hu, want.hu)
            assert np.allclose(got.grid.affine, want.grid.affine)

    def test_what_is_damaged_is_named(self, run: Path, tmp_path: Path) -> None:
        (tmp_path / "part.stl").write_bytes(b"not a mesh")
        (tmp_path / "fit.json").write_text("[1]")
        folder = RunFolder(tmp_path)
        assert folder.part is None and folder.fit == {} and folder.bones == {} and folder.ct is None
        assert set(folder.missing) == {"part.stl", "fit.json", "bones", "ct.nrrd"}
        with pytest.raises(InputError):
            RunFolder(tmp_path / "nowhere")


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)
        self.links += [v for k, v in attrs if k in ("src", "href")]
        if tag not in ("meta", "img", "br", "line", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (tag, self.open[-3:])
        self.open.pop()

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)


class TestReport:
    def test_needs_nothing_but_itself(self, html: str) -> None:
        page = Page()
        page.feed(html)
        assert page.open == [] and "script" not in page.tags and "link" not in page.tags
        assert page.links and all(link.startswith("data:image/png;base64,") for link in page.links)
        assert not re.search(r"https?://|@import|url\(", html)
        assert len(html) < 6_000_000

    def test_says_what_happened(self, html: str) -> None:
        for words in (
            "Hip stem, left",
            "1 check FAILED",
            "✗ FAIL",
            "! flag",
            "1.70 mm",
            "≥ 2.00 mm",
            "Size 11.",
            "within 0.8 mm",
            "133 g",
            "[M]",
            "[P]",
            "Taper 12/14",
            "Dalton 1995",
            "canal fill under 80 %",
            "центр голівки",
            "Припущення",
            "the scan ends 150 mm below the neck",
            "limit 1 mm",
            "Buy to fly",
            "not a released medical device",
        ):
            assert words in html, words
        assert html.count("not a released medical device") == 1
        assert (
            html.count("<img ") == 2 + 3 + 6 + 1 + 2
        )  # in bone, planes, axial, gap map, alone (its coat is too coarse)

    def test_no_patient_and_no_clock(self, html: str, run: Path) -> None:
        assert "Ivanenko" not in html and str(run) not in html and run.parent.name not in html
        assert not re.search(r"\b20[2-9]\d-\d\d-\d\d", html)

    def test_same_bytes_again_from_a_copy(self, run: Path, html: str, tmp_path: Path) -> None:
        from implantforge import report

        shutil.copytree(run, tmp_path / "copy")
        (tmp_path / "copy/report.html").unlink()
        slower = json.loads((run / "manifest.json").read_text("utf-8"))
        slower["stages"][0]["seconds"], slower["peak_memory_mb"] = 99.0, 1
        assert report.write(tmp_path / "copy", slower).read_text(encoding="utf-8") == html

    @pytest.mark.parametrize("gone", ["part.stl", "ct.nrrd", "fit.json", "anatomy.json", "bones", "manifest.json"])
    def test_a_missing_piece_is_said(
        self, run: Path, gone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from implantforge import report
        from implantforge.report import pictures

        monkeypatch.setattr(pictures, "render", lambda _, eye, **more: np.full((*eye.size, 3), 200, np.uint8))

        for name in ("part.stl", "ct.nrrd", "fit.json", "anatomy.json", "bones", "manifest.json"):
            heavy = gone != "part.stl" and name == "part.stl"  # pictures were made above; here words matter
            if name == gone or heavy:
                continue
            (tmp_path / name).symlink_to(run / name)
        if gone not in ("part.stl", "bones", "manifest.json"):
            fake_run.write_stl(tmp_path / "part.stl", sphere(9, tuple(fake_run.ORIGIN_MM)).vertices, sphere(9).faces)
        text = report.write(tmp_path).read_text(encoding="utf-8")
        assert "Not shown:" in text and gone.split(".")[0] in text
        Page().feed(text)

    def test_an_empty_folder_and_a_hostile_name(self, tmp_path: Path) -> None:
        from implantforge import report

        text = report.write(
            tmp_path, {"implant": "<script>x</script>", "checks": [{"name": "a", "value": float("nan")}, 3]}
        ).read_text("utf-8")
        assert "<script>" not in text and "not measured" in text
        assert report.write(tmp_path, {}).is_file()

    def test_thumbnail_is_a_small_rgb_png(self) -> None:
        import io

        from PIL import Image

        from implantforge.report import thumbnail

        data = thumbnail(sphere(10))
        image = Image.open(io.BytesIO(data))
        assert image.size == (384, 384) and image.mode == "RGB"
        assert dark(np.array(image)).mean() > 0.4
        assert thumbnail(sphere(10)) == data


def test_words_for_people() -> None:
    from implantforge.report.words import label, number, split_unit, ukrainian

    assert split_unit("lattice_pore_size_um") == ("lattice_pore_size", "µm")
    assert label("fit_gap_p95_mm") == "Fit gap 95th percentile"
    assert [number(0.93, "mm"), number(-0.7, "mm"), number(2013344), number(12.64, "°"), number(float("nan"))] == [
        "0.93 mm", "−0.70 mm", "2\u202f013\u202f344", "12.6°", "not measured"]  # fmt: skip
    assert ukrainian("femur_left") == "стегнова кістка, лівий бік"


class TestForTheShop:
    """What is machined is told apart from what is not, to the digits that a measuring machine needs."""

    ROWS = (
        {"name": "taper 12/14", "kind": "cone", "frame": "patient LPS mm, as part.stl", "base_mm": [67.69712, 14.7, -5.68],
         "axis": [-0.5589912, -0.2005, 0.8045612], "large_diameter_mm": 13.98712, "included_angle_deg": 5.0 + 2 / 3,
         "stock_radius_mm": 0.7, "stock_mm3": 658.2},
        {"name": "thread M8", "kind": "thread", "at_mm": [1.0, 2.0, 3.0], "pilot_diameter_mm": 6.2},
        {"name": "bone face", "kind": "datum plane", "at_mm": [1.0, 2.0, 3.0], "stock_mm": 0.0, "stock_mm3": 0.0},
        {"name": "screw hole 1", "kind": "hole", "at_mm": [1.0, 2.0, 3.0], "diameter_mm": 6.8},
        {"name": "shoulder", "kind": "plane", "at_mm": [1.0, 2.0, 3.0], "stock_mm": 0.0, "stock_mm3": 0.0},
        {"name": "tibia", "kind": "cut plane", "point_mm": [1.0, 2.0, 3.0], "normal": [0.0, 0.0, 1.0], "stock_mm3": 0.0},
    )  # fmt: skip

    @pytest.fixture(scope="class")
    @classmethod
    def told(cls, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list], str]:
        from implantforge import report
        from implantforge.report import tables

        folder = fake_run.make(tmp_path_factory.mktemp("shop") / "run", ct_h_mm=4.0, part_h_mm=3.0)
        page = json.loads((folder / "manifest.json").read_text())
        page["machined"] = list(cls.ROWS)
        page["metrics"] |= {"lattice_wall_median_um": 405.0, "lattice_wall_p01_um": 346.0, "lattice_wall_designed_um": 441.0,
                            "min_wall_mm": 0.352}  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(page))
        return tables.machined(RunFolder(folder)), report.write(folder).read_text(encoding="utf-8")

    def test_what_carries_no_stock_is_not_machined(self, told: tuple[dict[str, list], str]) -> None:
        rows, html = told
        names = {part: [row["name"] for row in some] for part, some in rows.items()}
        assert names == {"finish": ["Taper 12/14", "Thread M8"], "printed": ["Bone face", "Screw hole 1", "Shoulder"],
                         "cut": ["Tibia"]}  # fmt: skip
        assert not any("stock" in fact.lower() for row in rows["printed"] + rows["cut"] for fact in row["facts"])
        assert "Datums and holes as printed, nothing to take off" in html and "Bone cuts, for a guide" in html

    def test_points_stand_to_a_micrometre_and_directions_to_five_figures(
        self, told: tuple[dict[str, list], str]
    ) -> None:
        rows, html = told
        facts = rows["finish"][0]["facts"]
        assert "Axis (−0.55899, −0.20050, 0.80456)" in facts
        assert "Base (67.697, 14.700, −5.680)" in facts
        assert (
            "Large diameter 13.987 mm" in facts
            and "Included angle 5.667°" in facts
            and "Stock radius 0.700 mm" in facts
        )
        assert "Base (67.697, 14.700" in html

    def test_each_wall_says_which_it_is(self, told: tuple[dict[str, list], str]) -> None:
        html = told[1]
        for name in ("wall, held to the machine", "metal, median thickness", "metal, thinnest 1 %", "wall, designed"):
            assert html.count(f"Lattice {name}") == 1, name
        assert "Min wall" not in html and "narrowest neck of a network" in html
