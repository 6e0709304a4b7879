"""Student kinds: the ways to learn a task, behind one interface. The registry lists them.

Imports store and the packages of distill up to distill.evaluate and distill.students.
"""
