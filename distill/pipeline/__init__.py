"""One run from traces to a verdict, and when a run starts.

Imports store and all packages of distill but distill.forget and distill.status.
"""
