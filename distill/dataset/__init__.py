"""From logged exchanges to the rows of a run: which are usable, in which split, of what kind.

Imports store.
"""
