"""The errors of a request to an upstream.

UpstreamError
├── Unreachable   no connection could be made; nothing was sent
├── Slow          a connection or an answer took longer than its time limit
└── Broke         the connection ended before the answer did
"""


class UpstreamError(Exception):
    """A request to an upstream got no whole answer."""


class Unreachable(UpstreamError):
    """No connection could be made."""


class Slow(UpstreamError):
    """An upstream exceeded a time limit."""


class Broke(UpstreamError):
    """An upstream's connection ended before its answer did."""
