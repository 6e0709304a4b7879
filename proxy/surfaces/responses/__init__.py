"""OpenAI's Responses, with students' responses kept for clients that come back to them.

Imports as proxy.surfaces does, and proxy.surfaces.chat.
"""
