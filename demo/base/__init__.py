"""A tiny base student, pretrained on generated text, so that nothing is downloaded.

Imports store.settings and distill.train.
"""
