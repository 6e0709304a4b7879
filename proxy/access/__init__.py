"""Clients' keys, and what each key may use: requests, tokens, megabytes in flight.

Imports store, proxy.http and proxy.upstream.
"""
