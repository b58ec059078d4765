"""The house rules, read from the source: floors, rooms, sizes."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "implantforge"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
FLOOR = {"core": 0, "kernels": 0, "geom": 1, "stages": 2, "implants": 3, "pipeline": 4,
         "viewer": 5, "report": 5, "batch": 5, "cli": 6}  # fmt: skip
FAMILY = {
    "core",
    "kernels",
    "geom",
    "pipeline",
}  # files here may import each other; elsewhere a package is one room
NUMPY_ONLY = {"numpy", "__future__", "implantforge", "collections", "dataclasses", "typing"}
ONLY_IN = {
    "pydicom": ("stages/dicom/", "stages/phantoms/"),
    "gdcm": ("stages/dicom/", "stages/phantoms/"),
    "numba": ("kernels/jit.py",),
    "pyvista": ("viewer", "report"),
    "vtk": ("viewer", "report"),
    "lib3mf": ("stages/export.py",),
    "build123d": ("stages/cad/",),
    "OCP": ("stages/cad/",),
    "click": ("cli/",),
    "rich": ("cli/",),
}
LINES, FUNCTION_LINES = 500, 70


def short(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def module(path: Path) -> str:
    parts = ["implantforge", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in FILES}
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def typing_only(tree: ast.Module) -> set[ast.stmt]:
    """Statements under `if TYPE_CHECKING`, which no program runs."""
    blocks = (node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
    return {inner for node in blocks for inner in ast.walk(node) if isinstance(inner, ast.stmt)}


def imports(path: Path, top_only: bool = False) -> set[str]:
    """Modules a file imports; `from a import b` gives a.b where that is a module of the package, else a."""
    tree, out = TREES[path], set()
    skipped = typing_only(tree)
    for node in tree.body if top_only else ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            out |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{short(path)}: relative import"
            for name in node.names:
                full = f"{node.module}.{name.name}"
                out.add(full if full in MODULES else node.module)
    return out


def room(name: str) -> tuple[str, ...]:
    """(floor, room): the file, or the package, directly on a floor."""
    return tuple(name.split(".")[1:3])


def test_every_file_stands_on_a_floor():
    assert {room(name)[0] for name in MODULES if room(name)} <= set(FLOOR)


def made_of(name: str) -> set[str]:
    """Files of the implants that a system of several is made of."""
    parts = getattr(getattr(importlib.import_module(name), "IMPLANT", None), "parts", {})
    return {f"implantforge.implants.{part.name}" for part in parts.values()}


def shared(there: tuple[str, ...]) -> bool:
    """A file that implants of one kind have in common: not one itself, so its name begins with an underscore."""
    return there[0] == "implants" and len(there) > 1 and there[1].startswith("_")


def test_what_implants_share_is_no_implant_and_knows_none():
    for name, path in MODULES.items():
        if shared(room(name) or ("",)):
            assert not hasattr(importlib.import_module(name), "IMPLANT"), name
            near = {target for target in imports(path) if room(target)[:1] == ("implants",) and len(room(target)) > 1}
            assert not near, f"{short(path)} knows {near}"


def test_imports_go_down_only():
    wrong = []
    for name, path in MODULES.items():
        here = room(name)
        for target in imports(path):
            there = room(target) if target.startswith("implantforge.") else ()
            if not here or not there or here == there:
                continue
            if FLOOR[there[0]] > FLOOR[here[0]]:
                wrong.append(f"{short(path)} reaches up to {target}")
            elif here[0] != there[0] and FLOOR[there[0]] == FLOOR[here[0]]:
                wrong.append(f"{short(path)} and {target} share a floor but not a house")
            elif here[0] == "implants" and (target in made_of(name) or shared(there)):
                continue
            elif here[0] == there[0] and here[0] not in FAMILY | {"cli", "viewer", "report"} and len(there) > 1:
                wrong.append(f"{short(path)} imports its neighbour {target}")
    assert not wrong, "\n".join(wrong)


def test_no_import_cycles():
    graph = {
        name: {t for t in imports(path, top_only=True) if t in MODULES and t != name} for name, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for target in sorted(graph[name]):
                # a package's __init__ may gather its own files
                if not name.startswith(f"{target}."):
                    visit(target, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_only_geom_and_stages_call_kernels():
    for path in FILES:
        if any(target.startswith("implantforge.kernels") for target in imports(path)):
            assert short(path).startswith(("geom/", "stages/", "kernels/")), short(path)


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_stays_in_its_room(library):
    users = {short(path) for path in FILES for target in imports(path) if target.split(".")[0] == library}
    assert all(user.startswith(ONLY_IN[library]) for user in users), users


def test_core_needs_numpy_alone():
    used = {target.split(".")[0] for path in FILES if short(path).startswith("core/") for target in imports(path)}
    assert used <= NUMPY_ONLY


def test_kernels_stand_alone():
    for path in FILES:
        if short(path).startswith("kernels/"):
            inside = {target for target in imports(path) if target.startswith("implantforge")}
            assert inside <= {"implantforge.kernels.jit"}, short(path)


def test_heavy_libraries_are_imported_where_they_are_used():
    for path in FILES:
        top = {target.split(".")[0] for target in imports(path, top_only=True)}
        lazy = {"pyvista", "vtk", "pydicom", "lib3mf", "matplotlib", "nibabel", "build123d", "OCP"}
        if short(path).startswith(("stages/dicom/", "stages/phantoms/", "viewer", "report")):
            lazy = {"pyvista", "vtk"}
        assert not top & lazy, f"{short(path)} imports {top & lazy} at its top"
        if short(path).startswith("cli/"):
            assert not top & {"numpy", "scipy", "pydantic", "rich", "trimesh", "numba"}, short(path)


def test_files_and_functions_stay_small():
    wrong = []
    for path, tree in TREES.items():
        count = len(path.read_text(encoding="utf-8").splitlines())
        if count > LINES:
            wrong.append(f"{short(path)}: {count} lines > {LINES}")
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None:
                span = node.end_lineno - node.lineno + 1
                if span > FUNCTION_LINES:
                    wrong.append(f"{short(path)}:{node.lineno}: {node.name} has {span} lines > {FUNCTION_LINES}")
    assert not wrong, "\n".join(wrong)


def test_public_things_say_what_they_are():
    wrong = []
    for path, tree in TREES.items():
        if not ast.get_docstring(tree):
            wrong.append(short(path))
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                compiled = short(path).startswith("kernels/")
                if not ast.get_docstring(node) and not compiled:
                    wrong.append(f"{short(path)}:{node.lineno} {node.name}")
    assert not wrong, "\n".join(wrong)


def test_all_is_flat_and_true():
    for name, path in MODULES.items():
        for node in TREES[path].body:
            if isinstance(node, ast.Assign) and any(
                isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets
            ):
                names = ast.literal_eval(node.value)
                assert len(names) == len(set(names)), name
                loaded = importlib.import_module(name)
                assert all(hasattr(loaded, one) for one in names), name


def test_nothing_is_evaluated_or_unpickled():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), f"{short(path)}:{node.lineno}"
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, (
                    f"{short(path)}:{node.lineno}"
                )
        if "pickle" in imports(path):
            assert "find_class" in path.read_text(encoding="utf-8"), (
                f"{short(path)}: pickle without a restricted reader"
            )


def test_no_path_of_one_machine():
    texts = [*FILES, *(ROOT / "tests").glob("*.py"), *(ROOT / "benchmarks").glob("*.py"), *ROOT.glob("*.md"),
             *(ROOT / "pipelines").glob("*.toml"), ROOT / "pyproject.toml", ROOT / ".ci" / "run"]  # fmt: skip
    pattern = re.compile(r"(?<![\w.~])/(?:work|home|root|Users|mnt|srv)/\w")
    rows = ((p, p.read_text(encoding="utf-8").splitlines()) for p in texts if p.is_file())
    hits = [f"{p.name}:{n}" for p, lines in rows for n, line in enumerate(lines, 1) if pattern.search(line)]
    assert not hits, hits


def test_print_is_for_the_command_line():
    for path, tree in TREES.items():
        if not short(path).startswith("cli/"):
            calls = (n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name))
            assert not any(call.func.id == "print" for call in calls), short(path)  # type: ignore[attr-defined]
