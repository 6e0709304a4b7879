"""Synthetic data: the teacher writes new inputs for a task and answers them.

Imports store, distill.dataset, distill.teacher and distill.run.
"""
