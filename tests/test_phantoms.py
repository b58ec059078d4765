"""Synthetic patients: bones closed and clear of each other, paint in the right place, files that read back."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import manifold3d
import numpy as np
import pytest
from scipy.ndimage import map_coordinates, spline_filter

from implantforge.core import InputError, Mesh
from implantforge.stages import phantoms
from implantforge.stages.phantoms import bones as bones_module
from implantforge.stages.phantoms import disk, distance, model, truth

SMALL = (1.6, 1.6, 2.0)


@pytest.fixture(scope="module")
def patient() -> phantoms.Phantom:
    return phantoms.hip(3, spacing_mm=SMALL)


@pytest.fixture(scope="module")
def fine() -> phantoms.Phantom:
    """Nearly free of noise, at a scanner's voxels."""
    return phantoms.hip(1, spacing_mm=(0.9, 0.9, 1.25), noise_hu=1.0)


def _ball(radius: float, n: int = 60) -> Mesh:
    """A closed sphere that is nobody's marching cubes."""
    t, p = np.linspace(0, np.pi, n)[1:-1], np.arange(2 * n) * np.pi / n
    ring = np.stack(
        [np.outer(np.sin(t), np.cos(p)), np.outer(np.sin(t), np.sin(p)), np.outer(np.cos(t), 0 * p + 1)], -1
    )
    v = np.concatenate([ring.reshape(-1, 3), [[0, 0, 1], [0, 0, -1]]]) * radius
    m, rows = 2 * n, n - 2
    faces = []
    for i in range(m):
        j = (i + 1) % m
        faces += [[rows * m, i, j], [rows * m + 1, (rows - 1) * m + j, (rows - 1) * m + i]]
        faces += [f for r in range(rows - 1) for f in ([r * m + i, r * m + m + i, r * m + m + j],
                                                       [r * m + i, r * m + m + j, r * m + j])]  # fmt: skip
    return Mesh(v, np.array(faces))


def test_signed_distance_of_a_sphere() -> None:
    mesh, step = _ball(20.0), np.array([1.1, 1.3, 0.9])
    d = distance.signed(mesh, np.full(3, -26.0), step, (48, 41, 58), inner_mm=6.0, outer_mm=4.0)
    x = np.stack(np.meshgrid(*(-26 + np.arange(n) * s for n, s in zip(d.shape, step)), indexing="ij"), axis=-1)
    true = np.linalg.norm(x, axis=-1) - 20.0
    band = (true > -5.5) & (true < 3.5)
    assert np.abs(d - true)[band].max() < 0.05
    assert (np.sign(d) == np.sign(true))[np.abs(true) > 0.05].all()


def test_section_area_and_centroid() -> None:
    ((area, centre, _),) = truth.section(_ball(20.0), np.array([0.3, 0.1, 12.05]), np.array([0.0, 0.0, 1.0]))
    assert area == pytest.approx(np.pi * (400 - 12.05**2), rel=2e-3)
    np.testing.assert_allclose(centre, [0, 0, 12.05], atol=1e-6)


def test_unpickler_refuses_everything_but_arrays() -> None:
    for payload in (pickle.dumps(Path("/")), pickle.dumps(print), b"cos\nsystem\n(S'true'\ntR."):
        with pytest.raises(InputError, match="refuses"):
            model._ArraysOnly(io.BytesIO(payload)).load()


def test_mean_bones_are_closed() -> None:
    shape, atlas = model.load()
    least = {"patella": 1e4, "fibula": 3e4}  # the small bones; all others fill more than 100 cm3
    for name, (matrix, faces) in atlas.items():
        mesh = Mesh(matrix @ shape.mean, faces)
        edges, count = np.unique(
            np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0, return_counts=True
        )
        assert (count == 2).all() and len(edges) == 1.5 * len(faces)
        assert mesh.volume_mm3 > least.get(name.split("_")[0], 1e5), name


def test_meshes_closed_and_apart(patient: phantoms.Phantom) -> None:
    assert set(patient.meshes) == {*patient.labels.names, "canal_left", "canal_right"}
    for name, mesh in patient.meshes.items():
        solid = manifold3d.Manifold(manifold3d.Mesh(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32)))
        assert solid.status() == manifold3d.Error.NoError, name
        assert solid.volume() == pytest.approx(mesh.volume_mm3, rel=1e-4) and len(solid.decompose()) == 1, name
    assert min(patient.truth["clearance_mm"].values()) >= 1.2
    for side in ("left", "right"):
        assert 2.0 <= patient.truth[f"femur_{side}"]["joint_gap_min_mm"] <= 4.0
        wall = distance.unsigned(patient.meshes[f"femur_{side}"], patient.meshes[f"canal_{side}"].vertices[::50])
        assert wall.min() > 0.7


def test_truth_is_plausible_and_plain(patient: phantoms.Phantom) -> None:
    assert json.loads(json.dumps(patient.truth)) == patient.truth
    for side in ("left", "right"):
        t = patient.truth[f"femur_{side}"]
        assert t["head_residual_max_mm"] < 0.6 and 19 < t["head_radius_mm"] < 29
        assert np.linalg.norm(np.subtract(t["head_center_mm"], t["cup_center_mm"])) < 0.1
        assert 112 < t["neck_shaft_angle_deg"] < 146 and 25 < t["offset_mm"] < 60
        assert 9.0 < t["isthmus_width_mm"] < 15 and 2.5 < t["canal_flare_index"] < 7
        height = t["head_center_mm"][2] - t["lesser_trochanter_mm"][2]
        assert 30 < height < 80
    left, right = (patient.truth[f"femur_{s}"]["head_center_mm"] for s in ("left", "right"))
    assert left[0] > 0 > right[0]
    trochanter = patient.truth["femur_left"]["lesser_trochanter_mm"]
    assert trochanter[1] > patient.truth["femur_left"]["shaft_axis"]["point_mm"][1]  # posterior


def test_labels_follow_the_meshes(patient: phantoms.Phantom) -> None:
    grid = patient.labels.grid
    for name in ("hip_left", "hip_right", "sacrum"):
        counted = patient.labels.mask(name).sum() * np.prod(grid.spacing_mm)
        assert counted == pytest.approx(patient.meshes[name].volume_mm3, rel=5e-3)
    for name in ("femur_left", "femur_right"):
        assert patient.labels.mask(name)[:, :, 0].any(), "the shaft is cut by the scan"
        where = grid.to_patient(np.argwhere(patient.labels.mask(name)))
        assert (where[:, 0].mean() > 0) == (name == "femur_left")
    lesser = min(patient.truth[f"femur_{s}"]["lesser_trochanter_mm"][2] for s in ("left", "right"))
    assert 195 < lesser - grid.pose.origin_mm[2] < 235


def test_tissues_are_there(patient: phantoms.Phantom) -> None:
    hu = patient.volume.hu
    count, edges = np.histogram(hu, np.arange(-1024, 1800, 16))
    for low, high, share in ((-1024, -950, 0.2), (-130, -60, 0.02), (20, 90, 0.05)):
        window = (edges[:-1] >= low) & (edges[:-1] < high)
        assert count[window].sum() > share * hu.size, (low, high)
    femur = hu[patient.labels.mask("femur_left")]
    assert np.percentile(femur, 98) > 1150 and (femur < 60).mean() > 0.02
    assert hu[0].max() < -900 and hu[:, 0].max() < -900


@pytest.mark.parametrize("side", ["left", "right"])
def test_painted_edge_lies_on_the_mesh(fine: phantoms.Phantom, side: str) -> None:
    """Half-maximum along the normals of the thick shaft cortex: unbiased, outside and inside."""
    t = fine.truth[f"femur_{side}"]
    lesser, axis = np.array(t["lesser_trochanter_mm"]), np.array(t["shaft_axis"]["direction"])
    s = np.arange(-2.5, 2.5, 0.05)
    grid = fine.volume.grid
    low = tuple(np.floor(grid.to_index(fine.meshes[f"femur_{side}"].bounds[0] - 4)).astype(int).clip(0))
    high = tuple(np.ceil(grid.to_index(fine.meshes[f"femur_{side}"].bounds[1] + 4)).astype(int).clip(0, grid.shape))
    crop = fine.volume.crop(low, (high[0], high[1], int(grid.to_index(lesser - [0, 0, 70])[2])))
    spline = spline_filter(crop.hu.astype(np.float32))
    for name, sign in ((f"femur_{side}", 1.0), (f"canal_{side}", -1.0)):
        mesh = fine.meshes[name]
        below = (mesh.vertices - lesser) @ axis
        pick = np.flatnonzero((below > 90) & (below < 160))[::7]
        v, n = mesh.vertices[pick], sign * bones_module.normals(mesh)[pick]
        index = crop.grid.to_index((v[:, None] + s[:, None] * n[:, None]).reshape(-1, 3))
        profile = map_coordinates(spline, index.T, order=3, prefilter=False).reshape(len(v), -1)
        half = (np.median(profile[:, :15], axis=1) + np.median(profile[:, -15:], axis=1)) / 2
        centre = np.abs(s) < 1.2
        crossing = np.array([np.interp(-h, -p[centre], s[centre]) for h, p in zip(half, profile)])
        assert abs(np.median(crossing)) < 0.05, name
        assert np.percentile(np.abs(crossing), 90) < 0.25, name


def test_same_seed_same_bytes(patient: phantoms.Phantom, tmp_path: Path) -> None:
    again = phantoms.hip(3, spacing_mm=SMALL)
    np.testing.assert_array_equal(again.volume.hu, patient.volume.hu)
    assert again.truth == patient.truth
    k = patient.volume.grid.shape[2] // 2
    assert disk.slice_bytes(patient, k, "jpegls") == disk.slice_bytes(again, k, "jpegls")


def test_refuses_nonsense(patient: phantoms.Phantom, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="spacing"):
        phantoms.hip(0, spacing_mm=(0.0, 1.0, 1.0))
    with pytest.raises(InputError, match="transfer syntax"):
        phantoms.write(patient, tmp_path, transfer_syntax="jpeg")


@pytest.mark.parametrize("syntax", ["raw", "rle", "j2k", "jpegls"])
def test_slices_read_back(patient: phantoms.Phantom, syntax: str) -> None:
    pydicom = pytest.importorskip("pydicom")
    for k in (0, 77):
        data = pydicom.dcmread(io.BytesIO(disk.slice_bytes(patient, k, syntax)))
        hu = data.pixel_array.astype(int) * int(data.RescaleSlope) + int(data.RescaleIntercept)
        np.testing.assert_array_equal(hu.T, patient.volume.hu[:, :, k])
        place = patient.volume.grid.to_patient(np.array([0.0, 0.0, k]))
        np.testing.assert_allclose([float(x) for x in data.ImagePositionPatient], place, atol=1e-4)
        assert [float(x) for x in data.PixelSpacing] == [1.6, 1.6] and data.PatientName == "SAMPLE^HIP"
        assert data.SOPInstanceUID == data.file_meta.MediaStorageSOPInstanceUID


def test_files_beside_the_scan(patient: phantoms.Phantom, tmp_path: Path) -> None:
    import nibabel

    phantoms.write(patient, tmp_path, transfer_syntax="raw", meshes=True, zipped=True)
    labels = nibabel.load(tmp_path / "truth_labels.nii.gz")
    np.testing.assert_array_equal(np.asarray(labels.dataobj), patient.labels.values)
    lps = np.diag([-1, -1, 1, 1]) @ labels.affine
    np.testing.assert_allclose(lps, patient.labels.grid.affine, atol=1e-4)
    assert nibabel.aff2axcodes(labels.affine) == ("L", "P", "S")
    assert json.loads((tmp_path / "truth.json").read_text("utf-8")) == patient.truth
    assert len(list((tmp_path / "truth_meshes").glob("*.stl"))) == 7
    assert (tmp_path / "ct.zip").stat().st_size > 1e6


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_twenty_patients(seed: int) -> None:
    drawn = bones_module.draw(np.random.default_rng([seed, 1]), 1.2)
    told = truth.measure(drawn, seed, (0.8, 0.8, 1.0))
    assert min(told["clearance_mm"].values()) >= 1.2
    for name, mesh in (drawn.meshes | drawn.cavities).items():
        solid = manifold3d.Manifold(manifold3d.Mesh(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32)))
        assert solid.status() == manifold3d.Error.NoError, name
    for side in ("left", "right"):
        femur = told[f"femur_{side}"]
        assert 2.0 <= femur["joint_gap_min_mm"] <= 4.0 and femur["head_residual_max_mm"] < 0.6
        assert 9.0 < femur["isthmus_width_mm"] < 15.0


def test_committed_sample_is_whole() -> None:
    import zipfile

    import pydicom

    folder = Path(__file__).resolve().parents[1] / "sample_data" / "hip"
    told = json.loads((folder / "truth.json").read_text("utf-8"))
    assert told["seed"] == 0 and told["version"] == truth.VERSION
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 20e6
    with zipfile.ZipFile(folder / "ct.zip") as archive:
        names = archive.namelist()
        ends = [
            pydicom.dcmread(io.BytesIO(archive.read(name)), stop_before_pixels=True)
            for name in names[:: len(names) - 1]
        ]
    step = float(ends[1].ImagePositionPatient[2]) - float(ends[0].ImagePositionPatient[2])
    assert step == pytest.approx(1.25 * (len(names) - 1)) and ends[0].PatientName == "SAMPLE^HIP"
