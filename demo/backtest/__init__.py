"""understudy backtest: replays logged answers through the product and reports what it would save.

Imports store, distill, and the demo's base, teacher and drive.
"""
