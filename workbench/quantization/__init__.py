"""Curvature, grids, rounding, range coding and the artifact."""
