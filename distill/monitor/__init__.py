"""Promoted students under watch: live evidence, its decision, and the way from shadow to live.

Imports store and, of distill, dataset, gate, teacher, evaluate and students.
"""
