"""Anthropic's Messages.

Imports as proxy.surfaces does, and proxy.surfaces.chat.
"""
