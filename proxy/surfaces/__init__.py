"""The APIs through which clients ask; each reads requests and answers, and writes answers.

Imports store, proxy.http, proxy.access and proxy.routing.
"""
