"""What the data plane and the control plane share: records, settings, journal, routes, database."""
