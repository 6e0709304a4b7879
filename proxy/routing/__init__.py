"""Which task a request belongs to, and whether that task's student may answer it.

Imports store and proxy.http. Pure functions.
"""
