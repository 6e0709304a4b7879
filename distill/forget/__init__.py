"""Forgetting and retention: deleting traces, everything derived from them, and old runs.

Imports store and distill.pipeline.
"""
