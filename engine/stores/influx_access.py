"""Where an InfluxDB server is, and who we are there."""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from engine.errors import Unfit


class Access(NamedTuple):
    """Where the server is and who we are there."""

    base: str
    """URL without credentials and without a slash at its end."""
    token: str
    org: str
    database: str
    policy: str
    """Retention policy; empty: the default one. Both come of the bucket's name, `database` or `database/policy`."""
    username: str
    password: str
    ca: str
    """PEM file of the authority that signed the server's certificate; empty: those that the system trusts."""

    @property
    def bucket(self) -> str:
        """The name of both in one, as 2.x knows it."""
        return f"{self.database}/{self.policy}" if self.policy else self.database

    @property
    def is_local(self) -> bool:
        """The server is on this machine, where packing costs more than it saves."""
        host = urlsplit(self.base).hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def access(
    url: str, *, token: str = "", org: str = "", bucket: str = "rulemill", username: str = "", password: str = "",
    ca: str = "",
) -> Access:  # fmt: skip
    """Access by a URL, which may hold `user:password@`; Unfit for one that cannot be."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Unfit(f"the URL of InfluxDB does not hold: {error}") from error
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise Unfit("the URL of InfluxDB is http://host:port or https://host:port, with a path if need be")
    database, _, policy = bucket.partition("/")
    if not database or "\n" in bucket:
        raise Unfit(f"not a name for a database or bucket: {bucket!r}")
    name = f"[{host}]" if ":" in host else host
    base = f"{parts.scheme}://{name}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
    if parts.username:
        username, password = unquote(parts.username), unquote(parts.password or "")
    return Access(base, token, org, database, policy, username, password, ca)
