"""Student servers: a process for each, or one for all of the kind `label`, checked and restarted.

Imports store and distill.train.
"""
