"""Naive float64 oracles; they import nothing of the package."""
