"""The rules for connections that a caller asks for (server-side request forgery).

A host's addresses must all be public, and the connection is made to one of the addresses that were checked, so that a
name that resolves to another address the second time (DNS rebinding) has no effect. The same holds for each redirect.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from strata.egress.networks import is_public
from strata.egress.web_addresses import DEFAULT_PORTS, RefusedAddress, WebAddress, matches_host, origin_of

PORTS = (80, 443)


@dataclass(frozen=True)
class EgressRules:
    """What may be connected to.

    ports: the only ports; empty: every port. hosts: the only hosts, as `example.org` or `*.example.org`; empty: every
    host. private: whether addresses that are not public are allowed. origins: hosts with their ports that the operator
    has configured, which are not checked.
    """

    ports: tuple[int, ...] = PORTS
    hosts: tuple[str, ...] = ()
    private: bool = False
    origins: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of_root(cls, uri: str) -> EgressRules:
        """The rules for a file below a root on a web server, whose own host may be private.

        A redirect may lead to the same host and port, from http to https of the same host, and to public hosts.
        """
        origin = origin_of(uri)
        if origin is None:
            return cls()
        host, port = origin
        secure = ((host, DEFAULT_PORTS["https"]),) if port == DEFAULT_PORTS["http"] else ()
        return cls(origins=(origin, *secure))

    def check(self, address: WebAddress) -> None:
        """Check all but the addresses of a host's name. Raises RefusedAddress."""
        if (address.host, address.port) in self.origins:
            return
        if self.ports and address.port not in self.ports:
            allowed = ", ".join(map(str, self.ports))
            raise RefusedAddress(f"port {address.port} is not allowed; allowed: {allowed} (STRATA_URL_PORTS)")
        if self.hosts and not any(matches_host(address.host, pattern) for pattern in self.hosts):
            raise RefusedAddress(f"the host {address.host[:100]!r} is not one of those that the service may fetch from")
        if address.literal:
            self.check_addresses(address.host, address.port, [address.host])

    def check_addresses(self, host: str, port: int, addresses: Iterable[str]) -> None:
        """Check the IP addresses of a host. Raises RefusedAddress if one of them is not allowed."""
        # one private address among public ones is an error: the result must not depend on the order of a DNS response
        free = self.private or (host, port) in self.origins
        if not free and not all(map(is_public, addresses)):
            raise RefusedAddress(f"the host {host[:100]!r} has an address that is not public")
