"""Tests of store/database/: the file, its schema, and the queries by table."""
