"""What runs a recipe: validation, the straight line, its cache and the Run folder."""
