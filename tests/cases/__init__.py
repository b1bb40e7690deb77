"""Shapes that the tests and the benchmarks read, a file for each family of operations."""
