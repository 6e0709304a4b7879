"""Tests of store/: records, JSON, and the packages below."""
