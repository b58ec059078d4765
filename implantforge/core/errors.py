"""Errors a person can act on: each names what, where and how much."""


class ImplantForgeError(Exception):
    """Root of every refusal; the CLI prints it as one line and exits with 2."""


class InputError(ImplantForgeError):
    """The scan, recipe or file given cannot be used as it is."""


class AnatomyError(ImplantForgeError):
    """The bone does not show what was asked of it."""


class FitError(ImplantForgeError):
    """No size and pose of the implant meets its limits."""


class GeometryError(ImplantForgeError):
    """A shape cannot be made closed, connected or thick enough."""
