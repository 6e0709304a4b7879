"""Content that is not kept: redaction rules, Presidio, clients that opt out.

Imports the files of store.
"""
