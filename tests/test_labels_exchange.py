"""Label maps that others make, and ours in the hands of others: DICOM SEG, TotalSegmentator, 3D Slicer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from implantforge.core import Grid, InputError, Labels, Pose
from implantforge.geom import bonenames
from implantforge.stages import dicom, labels

LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
NAMES = {"femur_left": 1, "hip_right": 2, "tibia_left": 3, "patella_left": 4, "mandible": 5}


def make_labels(turn: float = 0.3, shape: tuple[int, int, int] = (30, 25, 20)) -> Labels:
    """Five unequal boxes on an oblique grid, with empty slices between."""
    c, s = np.cos(turn), np.sin(turn)
    pose = Pose(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]]), np.array([3.0, -7, 11]))
    values = np.zeros(shape, np.uint8)
    values[2:9, 3:8, 4:10], values[12:20, 3:8, 4:10], values[2:9, 12:20, 4:9] = 1, 2, 3
    values[22:, 2:5, 1:3], values[20:27, 14:22, 15:19] = 4, 5
    return Labels(Grid(pose, np.array([0.7, 0.8, 1.1]), shape), values, NAMES)


def same(one: Labels, two: Labels) -> bool:
    """Every voxel of every bone of `one` is in `two` at the same place."""
    if set(one.names) != set(two.names):
        return False
    for name in one.names:
        ours = one.grid.to_patient(np.argwhere(one.mask(name)).astype(float))
        theirs = two.grid.to_patient(np.argwhere(two.mask(name)).astype(float))
        if ours.shape != theirs.shape or not np.allclose(np.sort(ours, axis=0), np.sort(theirs, axis=0), atol=1e-3):
            return False
    return True


@pytest.mark.parametrize("shape", [(30, 25, 20), (31, 27, 20), (32, 24, 20)])
def test_segmentation_round_trip_and_determinism(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    truth = make_labels(shape=shape)
    dicom.write_segmentation(truth, tmp_path / "a.dcm")
    dicom.write_segmentation(truth, tmp_path / "b.dcm")
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    assert same(truth, dicom.read_segmentation(tmp_path / "a.dcm"))
    back = dicom.read_segmentation(tmp_path / "a.dcm", truth.grid)
    for name in NAMES:
        assert np.array_equal(back.mask(name), truth.mask(name))


def test_segmentation_tells_nothing_of_a_person(tmp_path: Path) -> None:
    dicom.write_segmentation(make_labels(), tmp_path / "a.dcm")
    ds = pydicom.dcmread(tmp_path / "a.dcm")
    for tag in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "AccessionNumber"):
        assert ds.get(tag) == "", tag
    for tag in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        assert ds.get(tag).startswith("2.25.")
    assert "ReferencedSeriesSequence" not in ds
    dicom.write_segmentation(make_labels(), tmp_path / "b.dcm", frame_of_reference="1.2.3")
    assert pydicom.dcmread(tmp_path / "b.dcm").FrameOfReferenceUID == "1.2.3"
    with pytest.raises(InputError, match="no labelled voxel"):
        dicom.write_segmentation(
            Labels(make_labels().grid, np.zeros((30, 25, 20), np.uint8), NAMES), tmp_path / "c.dcm"
        )


def test_highdicom_reads_ours(tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    truth = make_labels()
    dicom.write_segmentation(truth, tmp_path / "a.dcm")
    seg = highdicom.seg.segread(str(tmp_path / "a.dcm"))
    assert seg.number_of_segments == 5
    for number, name in enumerate(sorted(NAMES, key=NAMES.get), 1):  # type: ignore[arg-type]
        assert seg.get_segment_description(number).segment_label == name
        volume = seg.get_volume(segment_numbers=[number], combine_segments=True)
        mine = truth.grid.to_patient(np.argwhere(truth.mask(name)).astype(float))
        theirs = np.argwhere(np.asarray(volume.array) > 0) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
        assert np.allclose(np.sort(mine, axis=0), np.sort(theirs, axis=0), atol=1e-3), name


def sources(truth: Labels) -> list[Dataset]:
    """A CT series on the grid of the labels, for a maker of SEGs to refer to."""
    from series import make_series

    series = make_series((30, 25, 20), (0.7, 0.8, 1.1))
    turn = [*truth.grid.pose.rotation[:, 0], *truth.grid.pose.rotation[:, 1]]
    for k, ds in enumerate(series):
        ds.ImageOrientationPatient = [f"{v:.12f}" for v in turn]
        ds.ImagePositionPatient = [f"{v:.8f}" for v in truth.grid.to_patient(np.array([0.0, 0.0, k]))]
        ds.StudyID, ds.StudyTime, ds.AccessionNumber, ds.ReferringPhysicianName = "1", "1010", "", ""
        ds.PatientBirthDate = "19611224"
    return series


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"])
def test_segmentations_of_another_maker(tmp_path: Path, kind: str, syntax: str) -> None:
    highdicom = pytest.importorskip("highdicom")
    from highdicom.sr.coding import CodedConcept
    from pydicom.sr.codedict import codes

    if kind == "BINARY" and syntax.endswith(".5"):
        pytest.skip("binary segments are not compressed")
    truth = make_labels()
    known = sorted(NAMES, key=NAMES.get)  # type: ignore[arg-type]
    words = {
        "femur_left": "Left Femur",
        "hip_right": "segment 2",
        "tibia_left": "Tibia, L",
        "patella_left": "object",
        "mandible": "Jaw bone (lower)",
    }
    descriptions = []
    for n, name in enumerate(known, 1):
        bone, side = bonenames.parted(name)
        code = CodedConcept(bonenames.CODES[bone][0][0], "SCT", bone)
        description = highdicom.seg.SegmentDescription(n, words[name], codes.SCT.AnatomicalStructure, code, "MANUAL")
        if side:
            turn = Dataset()
            turn.CodeValue = {"left": "7771000", "right": "24028007"}[side]
            turn.CodingSchemeDesignator, turn.CodeMeaning = "SCT", side
            description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [turn]
        descriptions.append(description)
    stack = np.stack([truth.values == NAMES[name] for name in known], axis=-1).transpose(2, 1, 0, 3)
    array: Any = stack.astype(np.uint8)
    more: dict[str, Any] = {}
    if kind == "FRACTIONAL":
        array, more = np.where(stack, 0.7, 0.3), {"max_fractional_value": 200}
    if kind == "LABELMAP":
        array = truth.values.transpose(2, 1, 0)
    seg = highdicom.seg.Segmentation(
        source_images=sources(truth),
        pixel_array=array,
        segmentation_type=kind,
        segment_descriptions=descriptions,
        series_instance_uid="1.2.3.9",
        series_number=3,
        sop_instance_uid="1.2.3.10",
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="y",
        software_versions="1",
        device_serial_number="1",
        transfer_syntax_uid=syntax,
        **more,
    )
    seg.save_as(tmp_path / "s.dcm")
    assert same(truth, dicom.read_segmentation(tmp_path / "s.dcm"))


def first(ds: Dataset, n: int, name: str) -> Dataset:
    """The item of a functional group of frame n."""
    return ds.PerFrameFunctionalGroupsSequence[n][name].value[0]


def skewed(ds: Dataset) -> None:
    """Rows and columns along one direction."""
    plane = ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    plane.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]


def astray(ds: Dataset) -> None:
    """One frame off its place."""
    first(ds, 3, "PlanePositionSequence").ImagePositionPatient = [3, -7, 14.77]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: setattr(d, "NumberOfFrames", 99), "claims 99 frames"),
        (lambda d: setattr(d, "SegmentationType", "MAGIC"), "segmentation type MAGIC"),
        (lambda d: delattr(d, "SharedFunctionalGroupsSequence"), "does not say where it lies"),
        (lambda d: setattr(d, "PixelData", d.PixelData[:40]), "is short"),
        (lambda d: setattr(d, "Rows", 60000), "too large|is short"),
        (lambda d: d.SegmentSequence.pop(), "which is not described"),
        (astray, "off even steps"),
        (lambda d: setattr(d, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"), "no DICOM segmentation"),
        (skewed, "unit length"),
        (lambda d: setattr(d.SegmentSequence[1], "SegmentNumber", 1), "numbered"),
    ],
)
def test_broken_segmentations_refused(tmp_path: Path, change: Any, message: str) -> None:
    dicom.write_segmentation(make_labels(), tmp_path / "a.dcm")
    ds = pydicom.dcmread(tmp_path / "a.dcm")
    change(ds)
    ds.save_as(tmp_path / "a.dcm", enforce_file_format=False)
    with pytest.raises(InputError, match=message):
        dicom.read_segmentation(tmp_path / "a.dcm")


def test_overlapping_segments_refused(tmp_path: Path) -> None:
    dicom.write_segmentation(make_labels(), tmp_path / "a.dcm")
    ds = pydicom.dcmread(tmp_path / "a.dcm")
    for frame in ds.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence[0].ImagePositionPatient = (
            ds.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient
        )
    bits = np.unpackbits(np.frombuffer(ds.PixelData, np.uint8), bitorder="little")
    bits[:] = 1
    ds.PixelData = np.packbits(bits, bitorder="little").tobytes()
    ds.save_as(tmp_path / "a.dcm")
    with pytest.raises(InputError, match="lie in another segment"):
        dicom.read_segmentation(tmp_path / "a.dcm")


def test_two_segmentations_refused(tmp_path: Path) -> None:
    for name in "ab":
        dicom.write_segmentation(make_labels(), tmp_path / f"{name}.dcm")
    with pytest.raises(InputError, match="more than one segmentation"):
        dicom.read_segmentation(tmp_path)


@pytest.mark.parametrize(
    ("text", "side", "name"),
    [
        ("Left femur", "", "femur_left"),
        ("Femur R", "", "femur_right"),
        ("femur", "left", "femur_left"),
        ("FEMUR_LEFT", "", "femur_left"),
        ("hip bone, right", "", "hip_right"),
        ("Os coxae L", "", "hip_left"),
        ("L5 vertebra", "", "vertebrae_L5"),
        ("vertebrae_T12", "", "vertebrae_T12"),
        ("Sacrum", "", "sacrum"),
        ("Mandible", "", "mandible"),
        ("Patella left", "", "patella_left"),
        ("Tibia", "", "tibia"),
        ("femur cartilage left", "", None),
        ("left and right femur", "", None),
        ("lesion", "left", None),
        ("femoral head left", "", None),
        ("left right femur", "", None),
        ("", "", None),
        ("rib_left_3", "", "rib_left_3"),
    ],
)
def test_words_for_bones(text: str, side: str, name: str | None) -> None:
    assert bonenames.bone_name(text, side) == name


def test_codes_and_tasks_agree() -> None:
    every = [code for codes, _ in bonenames.CODES.values() for code in codes]
    assert len(every) == len(set(every))
    assert bonenames.TASKS["total"][75] == "femur_left" and bonenames.TASKS["total"][115] == "rib_right_12"
    assert bonenames.TASKS["total"][50] == "vertebrae_C1" and bonenames.TASKS["appendicular_bones"][2] == "tibia"
    for name in NAMES:
        bone, side = bonenames.parted(name)
        assert bonenames.coded_name(bonenames.CODES[bone][0][0], side) == name


def test_totalsegmentator_folder(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    truth = make_labels()
    for name in (*NAMES, "spleen"):
        mask = truth.mask(name).astype(np.uint8) if name in NAMES else np.ones(truth.grid.shape, np.uint8)
        nibabel.save(nibabel.Nifti1Image(mask, LPS_RAS @ truth.grid.affine), tmp_path / f"{name}.nii.gz")
    assert same(truth, labels.read(tmp_path))
    nibabel.save(nibabel.Nifti1Image(mask, np.diag([2, 2, 2, 1])), tmp_path / "sacrum.nii.gz")
    with pytest.raises(InputError, match="another grid"):
        labels.read(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="0 files of the folder"):
        labels.read(tmp_path / "empty")


def test_masks_that_overlap_refused(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    truth = make_labels()
    for name in ("femur_left", "hip_left"):
        nibabel.save(
            nibabel.Nifti1Image((truth.values > 0).astype(np.uint8), LPS_RAS @ truth.grid.affine),
            tmp_path / f"{name}.nii.gz",
        )
    with pytest.raises(InputError, match="lie in another segment"):
        labels.read(tmp_path)


def test_totalsegmentator_label_table(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    truth = make_labels()
    image = nibabel.Nifti1Image(truth.values, LPS_RAS @ truth.grid.affine)
    rows = "".join(
        f'<Label Key="{v}" Red="1" Green="0" Blue="0" Alpha="1"><![CDATA[{n}]]></Label>' for n, v in NAMES.items()
    )
    table = f'<VolumeInformation Index="0"><LabelTable>{rows}</LabelTable></VolumeInformation>'
    xml = f"<CaretExtension>{table}</CaretExtension>"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(0, xml.encode()))
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert same(truth, labels.read(tmp_path / "a.nii.gz"))


def slicer_header(truth: Labels, layers: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Header of a .seg.nrrd as 3D Slicer writes it, in RAS."""
    affine = LPS_RAS @ truth.grid.affine
    header: dict[str, Any] = {"space": "right-anterior-superior", "space origin": affine[:3, 3], "encoding": "gzip"}
    for n, (name, (layer, value)) in enumerate(layers.items()):
        header |= {
            f"Segment{n}_ID": f"Segment_{n}",
            f"Segment{n}_Name": name,
            f"Segment{n}_LabelValue": str(value),
            f"Segment{n}_Layer": str(layer),
            f"Segment{n}_Extent": "0 1 0 1 0 1",
        }
    return header | {"Segmentation_ReferenceImageExtentOffset": "0 0 0", "directions": affine[:3, :3].T}


def test_slicer_segmentation_with_layers(tmp_path: Path) -> None:
    nrrd = pytest.importorskip("nrrd")
    truth = make_labels()
    spread = {
        "femur_left": (0, 1),
        "Hip right": (1, 1),
        "Tibia, left": (0, 2),
        "patella_left": (2, 7),
        "Mandible": (1, 3),
    }
    header = slicer_header(truth, spread)
    volume = np.zeros((3, *truth.grid.shape), np.uint8)
    for (layer, value), name in zip(spread.values(), NAMES):
        volume[layer][truth.mask(name)] = value
    header |= {
        "space directions": np.vstack([[np.nan] * 3, header.pop("directions")]),
        "kinds": ["list", "domain", "domain", "domain"],
    }
    nrrd.write(str(tmp_path / "a.seg.nrrd"), volume, header)
    assert same(truth, labels.read(tmp_path / "a.seg.nrrd"))
    with pytest.raises(InputError, match="one 3D volume"):
        dicom.load(tmp_path / "a.seg.nrrd")
    volume[2][truth.mask("femur_left")] = 7
    nrrd.write(str(tmp_path / "b.seg.nrrd"), volume, header)
    with pytest.raises(InputError, match="lie in another segment"):
        labels.read(tmp_path / "b.seg.nrrd")


def test_slicer_segmentation_cropped_to_its_segments(tmp_path: Path) -> None:
    nrrd = pytest.importorskip("nrrd")
    truth = make_labels()
    part = Labels(truth.grid.crop((2, 2, 1), (30, 22, 19)), truth.values[2:30, 2:22, 1:19], truth.names)
    header = slicer_header(part, {name: (0, value) for name, value in NAMES.items()})
    header |= {
        "space directions": header.pop("directions"),
        "kinds": ["domain"] * 3,
        "Segmentation_ReferenceImageExtentOffset": "2 2 1",
    }
    nrrd.write(str(tmp_path / "a.seg.nrrd"), part.values, header)
    assert same(truth, labels.read(tmp_path / "a.seg.nrrd"))
    assert np.array_equal(labels.read(tmp_path / "a.seg.nrrd", truth.grid).values, truth.values)


def test_simpleitk_reads_ours_at_the_same_places(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    truth = make_labels()
    for suffix in (".nii.gz", ".seg.nrrd"):
        labels.write(truth, tmp_path / f"a{suffix}")
        image = sitk.ReadImage(str(tmp_path / f"a{suffix}"))
        values = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
        for index in ((3, 4, 5), (13, 4, 5), (25, 3, 2), (21, 15, 16), (0, 0, 0)):
            assert np.allclose(
                image.TransformIndexToPhysicalPoint(index), truth.grid.to_patient(np.array(index, float)), atol=1e-3
            )
        assert np.array_equal(values > 0, truth.values > 0)


def test_sides_of_bones_that_come_without(tmp_path: Path) -> None:
    grid = Grid(Pose(), np.array([2.0, 2.0, 2.0]), (100, 20, 30))
    values = np.zeros(grid.shape, np.uint8)
    values[5:15, 5:12, 2:28], values[80:95, 5:12, 2:28], values[80:85, 2:4, 20:25] = 2, 2, 1
    told = labels.sided(Labels(grid, values, {"tibia": 2, "patella": 1}), "left")
    assert set(told.names) == {"tibia_left", "tibia_right", "patella_left"}
    assert (
        np.argwhere(told.mask("tibia_left"))[:, 0].min() == 80
        and np.argwhere(told.mask("tibia_right"))[:, 0].max() == 14
    )
    unclear = labels.sided(Labels(grid, values, {"tibia": 2, "patella": 1}))
    assert "patella" in unclear.names
