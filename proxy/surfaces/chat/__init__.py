"""Chat completions, the form in which students are trained and certified.

Imports as proxy.surfaces does; the other surfaces may import its files.
"""
