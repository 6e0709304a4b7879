"""The data plane: takes requests, tags, routes, forwards, relays, and journals them.

Imports store. Its own order: http, upstream, access, routing, surfaces, observe, then these files.
"""
