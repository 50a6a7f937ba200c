"""Chase: train a network sparse, cut it down to a small dense-shaped one, and ship it.

Importing this package loads no torch, so that `chase --help` answers at once. The stages are the API:
`chase.sparse`, `chase.slimming`, `chase.exporters`, `chase.benchmarks`.
"""

__version__ = "0.1.0"
