"""The command line: `implantforge VERB`. Exit codes: 0 ok, 1 defect, 2 refused, 3 built but a check failed."""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import tempfile
import traceback
from typing import Any

import click

from implantforge import __version__

__all__ = ["main"]

OK, DEFECT, REFUSED, CHECK_FAILED, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 130, 141

# verb: (module of this package, what it does). Modules are imported when their verb runs.
VERBS = {
    "build": ("building", "CT to build-ready part: the whole line"),
    "plan": ("building", "build up to the fit, with ranked alternatives"),
    "demo": ("building", "build the hip stem on the sample patient"),
    "inspect": ("reading", "series found in a CT, and whether each can be used"),
    "segment": ("imaging", "label the bones of a CT"),
    "mesh": ("imaging", "one sub-voxel surface per bone of a CT"),
    "landmarks": ("measuring", "landmarks, frames and measures of bone meshes"),
    "lattice": ("filling", "fill any closed mesh, or its outer layer, with a lattice"),
    "template": ("drawing", "a size of an implant, or a planned part, as a STEP solid"),
    "view": ("reading", "look at a run in 3D"),
    "sample": ("reading", "write a synthetic patient as DICOM with its truth"),
    "list": ("knowing", "implants, lattices, checks, machines, materials, recipes"),
    "show": ("knowing", "every parameter of an implant with range, unit and source"),
}


class _Verbs(click.Group):
    """Reads a verb's module when the verb is called, so that --help needs nothing heavy."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module = importlib.import_module(f"implantforge.cli.{VERBS[name][0]}")
        command: click.Command = getattr(module, f"{name}_")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="implantforge")
def _cli() -> None:
    """Patient-specific 3D-printed titanium implants: CT in, build-ready porous part out.

    Lengths are millimetres, angles degrees, coordinates patient LPS. `implantforge VERB --help` tells more.
    """


def main(arguments: list[str] | None = None) -> None:
    """Runs one verb and exits with its code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_run(words))


def _run(words: list[str]) -> int:
    try:
        code = _cli.main(words, prog_name="implantforge", standalone_mode=False)
        sys.stdout.flush()
        return int(code or OK)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return OK if not words else REFUSED
    except click.ClickException as error:
        return _refuse(words, error.format_message())
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; nothing unfinished looks finished", err=True)
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):
        # click turns a closed pipe into SystemExit; the interpreter flushes stdout once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        from implantforge.core.errors import ImplantForgeError

        if isinstance(error, OSError) and error.strerror and error.filename:
            return _refuse(words, f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}")
        return _refuse(words, str(error)) if isinstance(error, ImplantForgeError) else _defect(error)


def _refuse(words: list[str], reason: str) -> int:
    """One line on stderr; with --json also one object on stdout."""
    line = " ".join(reason.split())
    if "--json" in words:
        click.echo(json.dumps({"status": "refused", "reason": line}, ensure_ascii=False))
    click.echo(f"refused: {line}", err=True)
    return REFUSED


def _defect(error: Exception) -> int:
    """One line; the log keeps the calls and the kind of error, not its text, which may quote a path or a header."""
    rows = traceback.extract_tb(error.__traceback__)
    page = [f"implantforge {__version__}, python {platform.python_version()}, {platform.system()}"]
    page += [f"{'/'.join(row.filename.replace(os.sep, '/').split('/')[-2:])}:{row.lineno} {row.name}" for row in rows]
    with tempfile.NamedTemporaryFile("w", prefix="implantforge-", suffix=".log", delete=False) as log:
        log.write("\n".join([*page, type(error).__name__]) + "\n")
    if os.environ.get("IMPLANTFORGE_TRACEBACK"):
        traceback.print_exception(error)
    text = " ".join(str(error).split())[:200]
    click.echo(f"defect of implantforge: {type(error).__name__}: {text} (call list: {log.name})", err=True)
    return DEFECT


def put_json(value: Any) -> None:
    """One JSON object on stdout."""
    from implantforge.pipeline.run import json_text

    click.echo(json_text(value), nl=False)
