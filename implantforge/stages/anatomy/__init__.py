"""Landmarks, axes and measures, one file per bone."""
