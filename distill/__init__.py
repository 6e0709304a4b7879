"""The control plane: collects traces, distils tasks into students, gates, promotes, and monitors.

Imports store. The packages import each other in the order that tests/product/test_architecture.py
holds; the files here come last.
"""
