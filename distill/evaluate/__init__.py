"""Asking a student for rows with known answers, scoring it, and the teacher's own ceiling.

Imports store and the packages of distill up to distill.amplify and distill.train.
"""
