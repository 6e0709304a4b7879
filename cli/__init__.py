"""The command line: the composition root, which alone knows both planes.

Imports everything; nothing imports it but the demo.
"""
