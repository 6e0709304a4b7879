"""The stand-in teacher: an OpenAI-compatible server that answers the demo's tasks.

Imports store, distill.dataset and demo.tasks.
"""
