"""The data plane: takes requests, tags, routes, forwards, relays, and journals them."""
