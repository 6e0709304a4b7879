"""Demonstrates the product without a key: a stand-in teacher, a tiny base, traffic.

Imports all other packages. Within: tasks, base, teacher, drive, backtest, journey.
"""
