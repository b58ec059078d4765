"""Can this machine open an OpenGL window, or draw without one? Asked in another process: VTK may end ours."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import lru_cache

from implantforge.core import ImplantForgeError

EGL = "vtkEGLRenderWindow"
_TRY = """
import vtkmodules.vtkRenderingOpenGL2
from vtkmodules.vtkRenderingCore import vtkRenderer, vtkRenderWindow
w = vtkRenderWindow()
w.SetOffScreenRendering(1)
w.SetSize(32, 32)
r = vtkRenderer()
w.AddRenderer(r)
w.Render()
ok = bool(w.SupportsOpenGL())
print("OPENGL", w.GetClassName() if ok else "")
"""


@lru_cache(maxsize=2)
def off_screen(timeout_s: float = 90.0) -> str:
    """'' when pictures can be drawn off screen, else the reason. Never raises, never takes this process down."""
    env = {**os.environ, "VTK_DEFAULT_OPENGL_WINDOW": os.environ.get("VTK_DEFAULT_OPENGL_WINDOW", EGL)}
    if not sys.platform.startswith("linux"):
        env.pop("VTK_DEFAULT_OPENGL_WINDOW", None)
    try:
        got = subprocess.run(
            [sys.executable, "-c", _TRY], env=env, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"OpenGL could not be tried ({type(error).__name__})"
    words = got.stdout.split()
    if got.returncode == 0 and len(words) == 2 and words[0] == "OPENGL":
        return ""
    if got.returncode < 0:
        return f"OpenGL ended with signal {-got.returncode}"
    return "no OpenGL driver answered"


def display() -> str:
    """'' when a window can be shown, else the reason."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display (DISPLAY is not set)"
    return ""


def require(screenshot: bool) -> None:
    """ImplantForgeError that says what to install or do, when the wanted picture cannot be made here."""
    no_display = "" if screenshot else display()
    if no_display:
        raise ImplantForgeError(
            f"view: {no_display}; run it at a desk, or use --screenshot X.png, or read report.html, which needs neither"
        )
    why = off_screen() if screenshot else ""
    if why:
        raise ImplantForgeError(
            f"view: {why}; on Debian or Ubuntu: apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri libgl1 "
            "libxrender1; report.html shows the same pictures without OpenGL"
        )
