"""The ways to compare a student's answer with the teacher's: a file each, and the registry.

Imports store, distill.dataset, distill.teacher and distill.run.
"""
