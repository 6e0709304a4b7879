"""The status of every task: its models, how they are put together, and the page that shows them.

Imports store and, of distill, dataset, run, monitor and pipeline.
"""
