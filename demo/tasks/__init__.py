"""The demo's tasks: generated requests with the answers that are right.

Imports the standard library alone.
"""
