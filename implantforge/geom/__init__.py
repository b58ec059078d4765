"""Verbs on nouns: shapes, meshing, measuring."""
