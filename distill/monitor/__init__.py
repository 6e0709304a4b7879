"""Monitors promoted students: live evidence, and the decisions from shadow to live and back.

Imports store and, of distill, dataset, gate, teacher, evaluate and students.
"""
