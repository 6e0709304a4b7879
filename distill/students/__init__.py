"""Student servers: one process for each promoted task, started, checked and restarted.

Imports store and distill.train.
"""
