"""understudy demo: the whole loop in some minutes, narrated.

Imports store and the demo's other packages.
"""
