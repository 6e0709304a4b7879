"""The client for every paid call to the teacher.

Imports store and distill.dataset.
"""
