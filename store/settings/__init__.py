"""The settings: config.yaml as frozen objects, and the teachers that model_list names.

Imports the files of store, and privacy for its settings.
"""
