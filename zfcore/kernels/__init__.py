"""Numba twins of the CUDA kernels: a file for each family, kernels first, then their launchers.

A launcher owns the geometry: it cuts the work by size, never by the number of threads, and hands
the pieces to the package's thread pool. Arguments come in the order outputs, inputs, sizes.
"""
