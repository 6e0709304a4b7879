"""understudy status: asks a server how each task stands, and shows it.

Imports store and cli.serve.
"""
