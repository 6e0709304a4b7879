"""What both planes share: records, errors, JSON, settings, files and the database.

Imports no other top-level package. Within: the files here, then privacy, settings, chat, process,
files, database.
"""
