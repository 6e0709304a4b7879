"""The gate: the bounds, the cutoffs and the certificate. Pure functions.

Imports store.
"""
