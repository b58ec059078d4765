"""ImplantForge: patient-specific 3D-printed titanium implants, from CT to a build-ready file."""

__version__ = "0.1.0"
