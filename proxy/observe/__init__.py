"""The records of each request: the journal's trace, metrics, OpenTelemetry spans.

Imports store, proxy.http and proxy.access.
"""
