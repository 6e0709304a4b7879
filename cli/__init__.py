"""The command line: the one place that wires both planes together."""
