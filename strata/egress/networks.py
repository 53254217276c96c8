"""Which IP addresses are public: those of no special-purpose network, by a table of our own.

The table has each entry of IANA's registries of special-purpose addresses for IPv4 and IPv6 (RFC 6890, as of 2026-11),
also those that are reachable from everywhere: no image is served there. Python's `ipaddress` is asked as well, but it
is not enough: its answers differ between versions (3.11.7 takes 192.0.0.192 for public), and it takes for public some
networks that older RFCs have reserved, such as fec0::/10.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

# network: what it is, and its source
_SPECIAL_IPV4 = {
    "0.0.0.0/8": "this network, RFC 791",
    "10.0.0.0/8": "private use, RFC 1918",
    "100.64.0.0/10": "shared by carriers, RFC 6598; with 100.100.100.200, Alibaba Cloud's metadata",
    "127.0.0.0/8": "loopback, RFC 1122",
    "168.63.129.16/32": "Azure's wire server, a public address that each virtual machine reaches as its host",
    "169.254.0.0/16": "link-local, RFC 3927; with 169.254.169.254, the metadata of most clouds",
    "172.16.0.0/12": "private use, RFC 1918",
    "192.0.0.0/24": "IETF protocol assignments, RFC 6890; with 192.0.0.192, Oracle Cloud's metadata",
    "192.0.2.0/24": "documentation, RFC 5737",
    "192.31.196.0/24": "AS112, RFC 7535",
    "192.52.193.0/24": "AMT, RFC 7450",
    "192.88.99.0/24": "relays of 6to4, RFC 7526",
    "192.168.0.0/16": "private use, RFC 1918",
    "192.175.48.0/24": "AS112, RFC 7534",
    "198.18.0.0/15": "benchmarks, RFC 2544",
    "198.51.100.0/24": "documentation, RFC 5737",
    "203.0.113.0/24": "documentation, RFC 5737",
    "224.0.0.0/4": "multicast, RFC 5771",
    "240.0.0.0/4": "reserved, RFC 1112, and broadcast, RFC 8190",
}
# the only block that IANA allocates for global unicast (RFC 4291, section 2.4): what lies outside of it is not public.
# So are ::/8 with loopback, IPv4-compatible (RFC 4291) and translated addresses (RFC 2765); 64:ff9b:1::/48 (RFC 8215);
# 100::/64 (RFC 6666); 5f00::/16 (RFC 9602); fc00::/7 (RFC 4193), with fd00:ec2::254, the metadata of Amazon's cloud;
# fe80::/10 (RFC 4291); fec0::/10 (RFC 3879); and ff00::/8 (RFC 4291)
_UNICAST_IPV6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_IPV6 = {
    "2001::/23": "IETF protocol assignments, RFC 2928: Teredo, benchmarks, ORCHID and others",
    "2001:db8::/32": "documentation, RFC 3849",
    "2002::/16": "6to4, RFC 3056: a relay may reach the IPv4 address that it contains",
    "2620:4f:8000::/48": "AS112, RFC 7534",
    "3ffe::/16": "6bone, returned by RFC 3701",
    "3fff::/20": "documentation, RFC 9637",
}
# addresses outside the block that stand for an IPv4 address: they are as public as that one
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")  # RFC 4291: the system connects to the IPv4 address itself
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: what DNS64 answers in a network without IPv4
# the interface identifier of ISATAP (RFC 5214), after which the IPv4 address follows; with or without the global bit
_ISATAP = (0x00005EFE, 0x02005EFE)

_IPV4_NETWORKS = tuple(ipaddress.IPv4Network(text) for text in _SPECIAL_IPV4)
_IPV6_NETWORKS = tuple(ipaddress.IPv6Network(text) for text in _SPECIAL_IPV6)


def is_public(text: str) -> bool:
    """Whether an IP address is public. False for a text that is no address, and for one with a zone (`%eth0`).

    An IPv4 address that is embedded in an IPv6 address must be public too.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return _is_public_ipv4(address)
    if address.scope_id is not None or not all(map(_is_public_ipv4, _embedded(address))):
        return False
    if address in _MAPPED or address in _NAT64:
        return True
    special = any(address in network for network in _IPV6_NETWORKS)
    return address in _UNICAST_IPV6 and not special and address.is_global


def _is_public_ipv4(address: ipaddress.IPv4Address) -> bool:
    return address.is_global and not any(address in network for network in _IPV4_NETWORKS)


def _embedded(address: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that a gateway or the system may take from an IPv6 address of an allowed network."""
    number = int(address)
    if address in _MAPPED or address in _NAT64 or (number >> 32) & 0xFFFFFFFF in _ISATAP:
        yield ipaddress.IPv4Address(number & 0xFFFFFFFF)
