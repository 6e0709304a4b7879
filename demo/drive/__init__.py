"""Runs the real product as a user would, and sends it traffic as a client would.

Imports store, cli, and the demo's tasks and teacher.
"""
