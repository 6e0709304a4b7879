"""The DuckDB file of the control plane: one module and one SQL file a table.

Imports the other packages of store.
"""
