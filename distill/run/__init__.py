"""What all stages of a run share: the run, its history, its progress, its budget.

Imports store, distill.dataset and distill.teacher.
"""
