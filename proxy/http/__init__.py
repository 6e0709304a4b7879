"""The server half of HTTP: clients' connections, requests' bodies, headers, refusals.

Imports store and uvicorn, nothing of proxy.
"""
