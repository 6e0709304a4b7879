"""understudy serve: what it starts, keeps running, reloads and stops.

Imports store.
"""
