"""Measurements: each a script with its method, each result kept in README.md beside them."""
