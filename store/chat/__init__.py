"""Chat completions as both planes read them: shapes, templates, tools, and the student's wire.

Imports the files of store and settings.
"""
