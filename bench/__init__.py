"""Measurements: each file a script with its method; the results are in README.md beside them.

Imports everything; nothing imports it.
"""
