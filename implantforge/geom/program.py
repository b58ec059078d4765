"""From the form of a field to the list of steps that kernels/rows.py runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, GeometryError
from implantforge.core.field import Form
from implantforge.kernels import rows

# The place in this list is the kernel's number of the operation.
STEPS = ("sphere", "plane", "box", "cone", "round_cone", "torus", "capsule", "samples", "periodic", "add", "negative",
         "absolute", "scale", "ramp", "min", "max", "smooth_min", "smooth_max", "sum", "keep", "load", "moved",
         "cylindrical", "spherical", "warped", "leave")  # fmt: skip
LEAVES = STEPS[:9]
FRAMES = STEPS[21:25]  # steps whose last part is read in coordinates of its own


@dataclass(frozen=True, eq=False)
class Program:
    """Arrays as kernels/rows.py takes them; depth (2,) = rows of stack, nested poses."""

    steps: NDArray[np.int64]
    numbers: Array
    samples: NDArray[np.float32]
    depth: NDArray[np.int64]

    @property
    def arrays(self) -> tuple[NDArray, ...]:
        """First arguments of the kernels."""
        return self.steps, self.numbers, self.samples, self.depth

    def ranges(self, points_mm: Array, radius_mm: float) -> Array:
        """Bounds (n,2) mm of the field in balls about points (n,3) mm."""
        out = np.empty((len(points_mm), 2))
        rows.ranges(*self.arrays, np.ascontiguousarray(points_mm, np.float64), radius_mm, out)
        return out

    def evaluate(self, points_mm: Array) -> Array:
        """Field (n,) mm at points (n,3) mm."""
        return self.ranges(points_mm, 0.0)[:, 0]


class _Writer:
    """Walks forms depth first; a form met twice in one frame is kept in a slot after its first evaluation."""

    def __init__(self, form: Form) -> None:
        self.steps: list[tuple[str, tuple[float, ...]]] = []
        self.limits: dict[int, tuple[float, float]] = {}
        self.samples: list[NDArray[np.float32]] = []
        self.places: dict[int, int] = {}
        self.slots: dict[tuple[int, ...], int] = {}
        self.uses: dict[tuple[int, ...], int] = {}
        self.top = self.highest = self.poses = 0
        self.count(form, ())
        self.write(form, ())

    def count(self, form: Form, frame: tuple[int, ...]) -> None:
        key = (*frame, id(form))
        self.uses[key] = self.uses.get(key, 0) + 1
        if self.uses[key] == 1:
            for part, inner in self.inner(form, frame):
                self.count(part, inner)

    def inner(self, form: Form, frame: tuple[int, ...]) -> list[tuple[Form, tuple[int, ...]]]:
        """Parts and the frame each is read in."""
        last = (*frame, id(form)) if form.step in FRAMES else frame
        return [*((part, frame) for part in form.parts[:-1]), *((part, last) for part in form.parts[-1:])]

    def write(self, form: Form, frame: tuple[int, ...]) -> None:
        key = (*frame, id(form))
        if key in self.slots:
            self.push("load", (float(self.slots[key]),))
            return
        if form.step in FRAMES:
            self.poses = max(self.poses, len(frame) + 1)
            for part in form.parts[:-1]:
                self.write(part, frame)
            self.top -= len(form.parts) - 1
            self.steps.append((form.step, form.numbers))
            self.write(form.parts[-1], key)
            self.steps.append(("leave", ()))
        elif form.step in LEAVES:
            size = float(np.abs(form.samples).max()) if form.step == "periodic" and form.samples is not None else np.inf
            self.limits[len(self.steps)] = form.slope, size
            self.push(form.step, (*_numbers(form), *self.place(form)))
        else:
            for part in form.parts:
                self.write(part, frame)
            self.steps.append((form.step, form.numbers))
            self.top -= len(form.parts) - 1
        if self.uses[key] > 1 and form.step not in FRAMES:
            self.slots[key] = len(self.slots)
            self.steps.append(("keep", (float(self.slots[key]),)))

    def push(self, step: str, numbers: tuple[float, ...]) -> None:
        self.steps.append((step, numbers))
        self.top += 1
        self.highest = max(self.highest, self.top)

    def place(self, form: Form) -> Iterator[float]:
        """Where the form's samples begin."""
        if form.samples is not None:
            if id(form.samples) not in self.places:
                self.places[id(form.samples)] = sum(s.size for s in self.samples)
                self.samples.append(form.samples)
            yield float(self.places[id(form.samples)])


def _numbers(form: Form) -> tuple[float, ...]:
    """A periodic form may give one length and one count of nodes for all axes; steps have three of each."""
    if form.step != "periodic" or form.samples is None:
        return form.numbers
    numbers = form.numbers if len(form.numbers) == 6 else (*form.numbers[:1] * 3, *form.numbers[1:] * 3)
    if form.samples.shape != tuple(int(n) + 1 for n in numbers[3:]):
        raise GeometryError(f"periodic: {numbers[3:]} nodes need one sample more an axis, got {form.samples.shape}")
    return numbers


def program(form: Form) -> Program:
    """The form as a program; samples are not copied when one array is all there is."""
    written = _Writer(form)
    flat: list[float] = []
    steps = np.empty((len(written.steps), 2), np.int64)
    for n, (step, numbers) in enumerate(written.steps):
        flat += written.limits.get(n, ())
        steps[n] = STEPS.index(step), len(flat)
        # slots lie above the stack
        flat += [numbers[0] + written.highest] if step in ("keep", "load") else numbers
    arrays = [s.reshape(-1) for s in written.samples]
    samples = arrays[0] if len(arrays) == 1 else np.concatenate([np.zeros(1, np.float32), *arrays])[1:]
    samples = np.ascontiguousarray(samples).view()
    samples.setflags(write=False)  # one type of array: the kernels are compiled once
    depth = np.array([written.highest + len(written.slots), written.poses + 1])
    return Program(steps, np.array([*flat, 0.0]), samples, depth)
