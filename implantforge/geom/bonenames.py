"""Names of bones: TotalSegmentator's classes by task, the words other programs use for them, and SNOMED CT codes."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Value: class name, bones only, as in TotalSegmentator's class map (totalsegmentator/map_to_binary.py, Apache-2.0).
# Values belong to a task: 2 is a tibia in one and a kidney in another; appendicular bones come without their side.
TASKS: dict[str, dict[int, str]] = {
    "total": {
        25: "sacrum", 26: "vertebrae_S1", 27: "vertebrae_L5", 28: "vertebrae_L4", 29: "vertebrae_L3",
        30: "vertebrae_L2", 31: "vertebrae_L1", **{32 + n: f"vertebrae_T{12 - n}" for n in range(12)},
        **{44 + n: f"vertebrae_C{7 - n}" for n in range(7)}, 69: "humerus_left", 70: "humerus_right",
        71: "scapula_left", 72: "scapula_right", 73: "clavicula_left", 74: "clavicula_right", 75: "femur_left",
        76: "femur_right", 77: "hip_left", 78: "hip_right", 91: "skull", **{92 + n: f"rib_left_{n + 1}" for n in range(12)},
        **{104 + n: f"rib_right_{n + 1}" for n in range(12)}, 116: "sternum",
    },
    "appendicular_bones": {1: "patella", 2: "tibia", 3: "fibula", 4: "tarsal", 5: "metatarsal", 6: "phalanges_feet",
                           7: "ulna", 8: "radius", 9: "carpal", 10: "metacarpal", 11: "phalanges_hand"},
}  # fmt: skip

# Bone: SNOMED CT code and whether there is one on each side. The first code is written, all are read (resources/
# totalsegmentator_snomed_mapping.csv of TotalSegmentator); T- codes are their SRT names in DICOM PS3.16.
CODES: dict[str, tuple[tuple[str, ...], bool]] = {
    "femur": (("71341001", "T-12710"), True), "tibia": (("12611008", "T-12740"), True),
    "fibula": (("87342007", "T-12750"), True), "patella": (("64234005", "T-12730"), True),
    "hip": (("29836001", "T-D2500"), True), "sacrum": (("54735007", "T-11AD0"), False),
    "skull": (("89546000", "T-11100"), False), "mandible": (("91609006", "T-11180"), False),
    "humerus": (("85050009", "T-12410"), True), "scapula": (("79601000", "T-12280"), True),
    "clavicula": (("51299004", "T-12310"), True), "sternum": (("56873002", "T-11210"), False),
    "ulna": (("23416004", "T-12430"), True), "radius": (("62413002", "T-12420"), True),
    "tarsal": (("108371006",), True), "metatarsal": (("53884002",), True), "carpal": (("83936004",), True),
    "metacarpal": (("36455000",), True), "vertebrae_S1": (("65985001",), False),
    "vertebrae_L1": (("66794005",), False), "vertebrae_L2": (("14293000",), False),
    "vertebrae_L3": (("36470004",), False), "vertebrae_L4": (("11994002",), False),
    "vertebrae_L5": (("49668003",), False), "vertebrae_T12": (("23215003",), False),
    "vertebrae_T11": (("12989004",), False), "vertebrae_T10": (("7610001",), False),
}  # fmt: skip
SIDE_CODES = {"7771000": "left", "24028007": "right", "G-A101": "left", "G-A100": "right"}
ANATOMICAL_STRUCTURE = ("123037004", "T-D000A")

_SIDES = {"left": "left", "l": "left", "lt": "left", "right": "right", "r": "right", "rt": "right"}
_WORDS = {
    "femur": "femur", "thighbone": "femur", "tibia": "tibia", "shinbone": "tibia", "fibula": "fibula",
    "patella": "patella", "kneecap": "patella", "hip": "hip", "hipbone": "hip", "innominate": "hip", "coxae": "hip",
    "hemipelvis": "hip", "sacrum": "sacrum", "skull": "skull", "cranium": "skull", "mandible": "mandible",
    "mandibula": "mandible", "jawbone": "mandible", "humerus": "humerus", "scapula": "scapula",
    "clavicle": "clavicula", "clavicula": "clavicula", "sternum": "sternum", "ulna": "ulna", "radius": "radius",
    "tarsal": "tarsal", "metatarsal": "metatarsal", "carpal": "carpal", "metacarpal": "metacarpal",
}  # fmt: skip
_IDLE = {"bone", "bones", "os", "of", "the", "structure", "vertebra", "vertebrae", "entire"}


def bone_name(text: str, side: str = "") -> str | None:
    """The class name for what someone wrote ("Left femur", "Femur, L", "L5 vertebra"), None when it is no bone known.

    side is used where the text names none. A word more ("femur cartilage left") makes it another thing: None.
    """
    if text in KNOWN and not (side and text in CODES):
        return text
    words = re.findall(r"[a-z]+\d*", text.lower())
    sides = {_SIDES[w] for w in words if w in _SIDES}
    nouns = {_WORDS[w] for w in words if w in _WORDS}
    spine = {f"vertebrae_{w.upper()}" for w in words if re.fullmatch(r"c[1-7]|t(1[0-2]|[1-9])|l[1-5]|s1", w)}
    rest = [
        w
        for w in words
        if w not in _SIDES and w not in _WORDS and w not in _IDLE and f"vertebrae_{w.upper()}" not in spine
    ]
    if rest or len(sides) > 1 or len(nouns | spine) != 1:
        return None
    (noun,) = nouns | spine
    side = next(iter(sides), side)
    if noun in spine or not CODES[noun][1]:
        return None if sides else noun
    return f"{noun}_{side}" if side else noun


def plain(text: str) -> str:
    """A name that may safely become a file name, '' when nothing is left of it."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text.strip())[:64]


def coded_name(code: str, side: str = "") -> str | None:
    """The class name for a SNOMED code (SCT or SRT) and a side, None when the code is no bone known."""
    for noun, (codes, paired) in CODES.items():
        if code in codes:
            return f"{noun}_{side}" if paired and side else noun
    return None


def parted(name: str) -> tuple[str, str]:
    """(bone, side) of a class name; side is '' where it has none."""
    bone, _, side = name.rpartition("_")
    return (bone, side) if side in ("left", "right") and bone in CODES else (name, "")


def spoken(names: Iterable[str]) -> str:
    """Class names as people say them: "the left femur and the left tibia", "" for none."""
    words = [" ".join(["the", *([side] if side else []), "hip bone" if bone == "hip" else bone.replace("_", " ")])
             for bone, side in map(parted, names)]  # fmt: skip
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


KNOWN = {name for task in TASKS.values() for name in task.values()} | {
    f"{bone}_{side}" if side else bone
    for bone, (_, paired) in CODES.items()
    for side in (("left", "right", "") if paired else ("",))
}
