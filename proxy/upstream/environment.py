"""Which forward proxy the environment names for an address: HTTP_PROXY, HTTPS_PROXY, NO_PROXY."""

from __future__ import annotations

import os

from proxy.upstream.request import Origin

_NAMES = ("http_proxy", "https_proxy")  # upper case counts as well


def forward_proxy(origin: Origin) -> str | None:
    """The forward proxy's URL; None to connect directly, always for addresses of this machine.

    The variables are read as the standard library reads them: lower case wins over upper case, and
    NO_PROXY lists domains with their subdomains, or is `*`.
    """
    if origin.loopback or not any(name.lower() in _NAMES for name in os.environ):
        return None
    from urllib.request import getproxies_environment, proxy_bypass  # noqa: PLC0415

    proxies = getproxies_environment()
    if proxy_bypass(f"{origin.host}:{origin.port}"):
        return None
    url = proxies.get(origin.scheme)
    if url and "://" not in url:
        url = f"http://{url}"  # as curl takes it
    return url or None
