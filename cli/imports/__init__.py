"""understudy import: other systems' logs become traces.

Imports store.
"""
