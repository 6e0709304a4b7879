"""The client half of HTTP: requests to teachers, students and the control plane.

Imports store and proxy.http.
"""
