"""Commands that a server carries out: pause, resume, promote, demote, retrain, reload, forget.

Imports store, distill, cli.serve and cli.status.
"""
