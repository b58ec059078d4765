"""The lower-limb shape model, from which a patient's bones are drawn."""

from implantforge.geom.shapemodel import ShapeModel, _ArraysOnly, load

__all__ = ["ShapeModel", "_ArraysOnly", "load"]
