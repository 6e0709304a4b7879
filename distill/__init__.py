"""The control plane: collects traces, distils tasks into students, gates, promotes, and watches."""
