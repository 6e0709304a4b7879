"""What can come of asking an upstream, other than a whole answer.

UpstreamError
├── Unreachable   no connection could be made; nothing was sent
├── Slow          a connection or an answer took longer than its time limit
└── Broke         the connection ended before the answer did
"""


class UpstreamError(Exception):
    """An upstream did not give a whole answer."""


class Unreachable(UpstreamError):
    """No connection could be made."""


class Slow(UpstreamError):
    """An upstream was silent for too long."""


class Broke(UpstreamError):
    """An upstream's connection ended before its answer did."""
