"""Label values of the bones this program draws itself, by TotalSegmentator class name.

`metal` and `bone` (bones that cannot be told apart) are this program's own.
"""

NAMES = {
    "femur_left": 1, "femur_right": 2, "hip_left": 3, "hip_right": 4, "sacrum": 5,
    "tibia_left": 6, "tibia_right": 7, "fibula_left": 8, "fibula_right": 9, "patella_left": 10, "patella_right": 11,
    "skull": 12, "mandible": 13, "bone": 29, "metal": 30,
}  # fmt: skip
METAL, UNDIVIDED = "metal", "bone"
