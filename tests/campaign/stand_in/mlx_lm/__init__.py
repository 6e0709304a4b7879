"""A stand-in for the package of the student's server, found first on PYTHONPATH.

The product starts it as it would start the real one; nothing of the product is replaced.
"""
