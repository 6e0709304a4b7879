"""The formats that both planes read and write: journal, routes, stored responses.

Imports the files of store and settings.
"""
