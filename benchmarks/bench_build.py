"""The whole way: `implantforge build hip_stem` on the sample patient, through the command line, in a fresh process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CLI = [sys.executable, "-c", "from implantforge.cli import main; main()"]
COMMAND = [*CLI, "build", "hip_stem", "--quiet"]
STAGES = ("load", "segment", "surface femur_left", "anatomy femur_left", "plan", "envelope", "lattice", "orient", "verify",
          "export", "report")  # fmt: skip
PASSED = (0, 3)  # built, and built with a failed check


def build(out: Path, command: list[str] = COMMAND) -> dict[str, Any]:
    """Seconds, peak MB of the process and the manifest of one build into `out`."""
    began = time.perf_counter()
    child = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = child.stderr.read() if child.stderr else b""
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if child.returncode not in PASSED:
        raise RuntimeError((said.decode().strip().splitlines() or [f"exit {child.returncode}"])[-1])
    page = json.loads((out / "manifest.json").read_text("utf-8"))
    return {"seconds": seconds, "peak_MB": usage.ru_maxrss / 1024, "cpu_s": usage.ru_utime + usage.ru_stime,
            "stages": {row["name"]: row["seconds"] for row in page["stages"]},
            "bytes": sum(row["bytes"] for row in page["files"])}  # fmt: skip


def runs() -> dict[str, Any]:
    """A build into an empty folder and the same again, which finds every result there."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        return {"first": build(out), "again": build(out)}


class _Made:
    """Both builds, made once for all classes."""

    timeout = 1800

    def setup_cache(self) -> dict[str, Any]:
        return runs()


class Build(_Made):
    """One build from CT to part and report, stage by stage, and the same again from its cache; compiled kernels are on
    disk."""

    params = ("all", *STAGES)
    param_names = ("stage",)

    def setup(self, found: dict[str, Any], stage: str) -> None:
        if stage != "all" and stage not in found["first"]["stages"]:
            raise NotImplementedError(f"a build has no stage {stage}")

    def track_first_s(self, found: dict[str, Any], stage: str) -> float:
        return seconds(found["first"], stage)

    def track_cached_s(self, found: dict[str, Any], stage: str) -> float:
        return seconds(found["again"], stage)


def seconds(made: dict[str, Any], stage: str) -> float:
    """Of one stage, or of the whole process."""
    return float(made["seconds"] if stage == "all" else made["stages"][stage])


class Process(_Made):
    """What both builds take beside wall time."""

    params = ("first", "again")
    param_names = ("build",)

    def track_peak_memory_MB(self, found: dict[str, Any], build: str) -> float:
        return float(found[build]["peak_MB"])

    def track_processor_s(self, found: dict[str, Any], build: str) -> float:
        return float(found[build]["cpu_s"])

    def track_run_folder_MB(self, found: dict[str, Any], build: str) -> float:
        return float(found[build]["bytes"]) / 1e6


class Planned:
    """A total hip from the bones' labelled surfaces, which are already there, to its planned parts: anatomy of four bones,
    then the plan; the process with its imports."""

    timeout = 1800

    def setup_cache(self) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            command = [*CLI, "plan", "hip_total"]
            build(out, command)
            for made in (*out.glob("cache/anatomy_*"), *out.glob("cache/plan-*")):
                shutil.rmtree(made)
            return build(out, command)

    def track_hip_total_s(self, found: dict[str, Any]) -> float:
        return float(found["seconds"])

    def track_anatomy_s(self, found: dict[str, Any]) -> float:
        return float(sum(took for name, took in found["stages"].items() if name.startswith("anatomy")))

    def track_plan_s(self, found: dict[str, Any]) -> float:
        return float(found["stages"]["plan"])

    def track_peak_memory_MB(self, found: dict[str, Any]) -> float:
        return float(found["peak_MB"])
