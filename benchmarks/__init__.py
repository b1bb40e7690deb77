"""Benchmarks: zfcore beside its peers, interleaved in one run. `python -m benchmarks --help` tells more."""
