"""From the form of a field to the list of steps that kernels/rows.py runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from implantforge.core import Array, GeometryError
from implantforge.core.field import Form
from implantforge.kernels import leaves, rows, steps
from implantforge.kernels.jit import shared

# The place in this list is the kernel's number of the operation.
STEPS = ("sphere", "plane", "box", "cone", "round_cone", "torus", "capsule", "samples", "periodic", "waves", "add",
         "negative", "absolute", "scale", "ramp", "min", "max", "smooth_min", "smooth_max", "sum", "length", "over",
         "moved", "cylindrical", "spherical", "warped")  # fmt: skip
LEAVES = STEPS[:10]
DOORS = (*[leaves.solid] * 3, *[leaves.revolved] * 4, leaves.sampled, leaves.periodic, leaves.waves, *[steps.change] * 5,
         *[steps.join] * 7, *[steps.enter] * 3)  # fmt: skip
FRAMES = STEPS[22:]  # steps whose last part is read in coordinates of its own
NOWHERE = np.zeros(3)

_Key = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """Arrays as kernels/rows.py takes them; depth (6,) = rows, frames, the answer's row, the addresses of steps.run and
    steps.prune, and the room that steps.prune needs. Numbers are about centre_mm (3,): float32 is fine to a few 1e-6 mm
    within 100 mm of it."""

    steps: NDArray[np.int64]
    numbers: NDArray[np.float32]
    samples: NDArray[np.float32]
    depth: NDArray[np.int64]
    centre_mm: Array

    @property
    def arrays(self) -> tuple[NDArray, ...]:
        """First arguments of the kernels."""
        return self.steps, self.numbers, self.samples, self.depth

    def ranges(self, points_mm: Array, radius_mm: float) -> NDArray[np.float32]:
        """Bounds (n,2) mm of the field in balls about points (n,3) mm."""
        out = np.empty((len(points_mm), 2), np.float32)
        about = np.ascontiguousarray(points_mm - self.centre_mm, np.float32)
        shared(rows.ranges, len(out), 512, *self.arrays, about, np.float32(radius_mm), out)
        return out

    def evaluate(self, points_mm: Array) -> NDArray[np.float32]:
        """Field (n,) mm at points (n,3) mm."""
        return self.ranges(points_mm, 0.0)[:, 0]


class _Writer:
    """Walks forms depth first; a form met twice in one frame is evaluated once. A row is free again after the last step
    that reads it."""

    def __init__(self, form: Form, centre: Array) -> None:
        self.centre = centre
        self.steps: list[list[int]] = []
        self.numbers: list[float] = []
        self.samples: list[NDArray[np.float32]] = []
        self.places: dict[int, int] = {}
        self.uses: dict[_Key, int] = {}
        self.made: dict[_Key, int] = {}
        self.free: set[int] = set()
        self.rows, self.frames = 0, 1
        self.count(form, ())
        self.answer = self.write(form, (), 0)

    def count(self, form: Form, where: _Key) -> None:
        key = (*where, id(form))
        self.uses[key] = self.uses.get(key, 0) + 1
        if self.uses[key] == 1:
            for part, inner in _parts(form, where):
                self.count(part, inner)

    def write(self, form: Form, where: _Key, frame: int) -> int:
        """Row that holds the form's values."""
        key = (*where, id(form))
        if key in self.made:
            return self.made[key]
        if form.step in FRAMES:
            read = [self.write(part, where, frame) for part in form.parts[:-1]]
            inner, self.frames = self.frames, self.frames + 1
            self.step(form, inner, read if form.step == "warped" else [frame], frame)
            self.release(form.parts[:-1], where)
            row = self.write(form.parts[-1], key, inner)
        elif form.step in LEAVES:
            row = self.row()
            self.step(form, row, [0, 0, frame], frame)
        else:
            read = [self.write(part, where, frame) for part in form.parts]
            row = self.row()  # never one that is read: loops over rows that do not overlap are done in wide words
            self.step(form, row, read, frame)
            self.release(form.parts, where)
        self.made[key] = row
        return row

    def row(self) -> int:
        if not self.free:
            self.free.add(self.rows)
            self.rows += 1
        row = min(self.free)
        self.free.discard(row)
        return row

    def release(self, parts: tuple[Form, ...], where: _Key) -> None:
        """One use less of each part; a row without uses is free."""
        for part in parts:
            key = (*where, id(part))
            self.uses[key] -= 1
            if not self.uses[key]:
                self.free.add(self.made[key])

    def step(self, form: Form, to: int, read: list[int], frame: int) -> None:
        numbers = _about(form, self.centre if frame == 0 else NOWHERE)
        if form.step in LEAVES:
            size = np.inf
            if form.step == "waves":
                size = sum(map(abs, form.numbers[3::4]))
            elif form.step == "periodic" and form.samples is not None:
                size = float(np.abs(form.samples).max())
            self.numbers += form.slope, size
        place = 0
        if form.samples is not None:
            if id(form.samples) not in self.places:
                self.places[id(form.samples)] = sum(s.size for s in self.samples)
                self.samples.append(form.samples)
            place = self.places[id(form.samples)]
        op = STEPS.index(form.step)
        opened = int(DOORS[op]) if op < len(DOORS) else 0  # compiled now, when first used
        self.steps.append([op, len(self.numbers), to, *read, *[0] * (3 - len(read)), place, opened])
        self.numbers += numbers


def _parts(form: Form, where: _Key) -> Iterator[tuple[Form, _Key]]:
    """Parts and the frame each is read in."""
    for n, part in enumerate(form.parts, 1):
        yield part, (*where, id(form)) if form.step in FRAMES and n == len(form.parts) else where


def _about(form: Form, centre: Array) -> list[float]:
    """Numbers of a form for points that are given about a centre."""
    n = np.array(_numbers(form))
    if form.step in ("moved", "cylindrical", "spherical", "samples"):
        n[9:12] -= centre
    elif form.step == "plane":
        n[3] -= n[:3] @ centre
    elif form.step == "periodic":
        shift = centre / n[:3]
        n = np.concatenate([n, shift - np.floor(shift)])
    elif form.step == "waves":
        shift, terms = centre / n[:3], n[3:].reshape(-1, 4)
        head = [*(1 / n[:3]), *(shift - np.floor(shift)), float((terms[:, 1:] > 2).any()), float(len(terms))]
        n = np.concatenate([head, n[3:]])
    elif form.step in LEAVES:
        n[:3] -= centre
    return list(n.tolist())


def _numbers(form: Form) -> tuple[float, ...]:
    """A periodic form may give one length and one count of nodes for all axes; steps have three of each."""
    if form.step != "periodic" or form.samples is None:
        return form.numbers
    numbers = form.numbers if len(form.numbers) == 6 else (*form.numbers[:1] * 3, *form.numbers[1:] * 3)
    if form.samples.shape != tuple(int(n) + 1 for n in numbers[3:]):
        raise GeometryError(f"periodic: {numbers[3:]} nodes need one sample more an axis, got {form.samples.shape}")
    return numbers


def program(form: Form, centre_mm: Array = NOWHERE) -> Program:
    """The form as a program about a centre; samples are not copied when one array is all there is."""
    written = _Writer(form, np.asarray(centre_mm, np.float64))
    arrays = [s.reshape(-1) for s in written.samples]
    samples = arrays[0] if len(arrays) == 1 else np.concatenate([np.zeros(1, np.float32), *arrays])[1:]
    samples = np.ascontiguousarray(samples).view()
    samples.setflags(write=False)  # one type of array: the kernels are compiled once
    room = 2886 + 1538 * written.frames + 513 * written.rows + len(written.steps)
    depth = np.array([written.rows, written.frames, written.answer, int(steps.run), int(steps.prune), room])
    numbers = np.array([*written.numbers, 0.0], np.float32)
    return Program(np.array(written.steps, np.int64), numbers, samples, depth, written.centre)
