"""Processes: the leash of a child, what serve hands over to it, the workers' shared page.

Imports the standard library alone.
"""
