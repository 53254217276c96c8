"""Which addresses are public, and which spellings of a host are refused."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.egress import EgressRules, RefusedAddress, WebAddress, is_public
from strata.egress.networks import _IPV4_NETWORKS, _IPV6_NETWORKS

METADATA = ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "169.254.170.2")


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "193.0.6.139", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *METADATA,
        *("127.0.0.1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "100.64.0.1", "0.0.0.0", "0.1.2.3", "224.0.0.1"),
        *("192.0.0.9", "192.0.2.1", "192.88.99.1", "198.19.0.1", "203.0.113.9", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "fec0::1", "fc00::1", "ff02::1", "100::1", "5f00::1", "2001:db8::1", "3fff::1"),
        *("2001::1", "2001:20::1", "2002:808:808::1", "2620:4f:8000::1", "64:ff9b:1::808:808", "3ffe::1", "4000::1"),
        # IPv4 addresses within: mapped, compatible, translated, NAT64, ISATAP, and those of metadata
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::8.8.8.8", "::ffff:0:8.8.8.8", "64:ff9b::7f00:1"),
        *("64:ff9b::a83f:8110", "2a00::5efe:10.0.0.1", "2a00::200:5efe:c000:c0", "::ffff:168.63.129.16"),
        # no addresses, and zones
        *("fe80::1%eth0", "2606:4700::1111%eth0", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "localhost", ""),
    ],
)
def test_not_public(address: str) -> None:
    assert not is_public(address)


@given(st.sampled_from(_IPV4_NETWORKS + _IPV6_NETWORKS), st.integers(0))
def test_no_address_of_a_special_network_is_public_in_any_form(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network, number: int
) -> None:
    address = network[number % network.num_addresses]
    forms = [address]
    if address.version == 4:
        forms += [ipaddress.IPv6Address(int(address) | prefix << 32) for prefix in (0, 0xFFFF, 0x64FF9B << 64, 0x5EFE)]
    assert not any(is_public(str(form)) for form in forms)


@given(st.ip_addresses())
def test_what_the_library_takes_for_private_is_not_public(address: ipaddress.IPv4Address) -> None:
    assert address.is_global or not is_public(str(address))


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("http://example.org", "example.org", 80),
        ("HTTPS://Example.ORG:8443/A?b#c", "example.org", 8443),
        ("https://my_store-1.example.org/@a:b", "my_store-1.example.org", 443),
        ("http://8.8.8.8/", "8.8.8.8", 80),
        ("https://[2606:4700:0::1111]/", "2606:4700::1111", 443),
        ("https://bücher.example/", "xn--bcher-kva.example", 443),
        ("https://example.org/?url=http://user@127.0.0.1", "example.org", 443),
    ],
)
def test_a_url_is_taken_apart(url: str, host: str, port: int) -> None:
    found = WebAddress.parse(url)
    assert (found.host, found.port) == (host, port)


@pytest.mark.parametrize(
    "url",
    [
        # other numbers that the system takes for 127.0.0.1 or 169.254.169.254
        *("http://2130706433/", "http://0x7f000001/", "http://0x7f.1/", "http://0177.0.0.1/", "http://127.1/"),
        *("http://127.0.0.1./", "http://0/", "http://0x/", "http://127.0.0.0x1/", "http://127.0.0.01/"),
        *("http://①②⑦.⓪.⓪.①.1/", "http://127。0。0。1。/", "http://169.254.43518/", "http://1.2.3.4.5/"),
        # names
        *(
            "http://example.org./",
            "http://.example.org/",
            "http://a..b/",
            "http://%6c%6fcalhost/",
            "http://ex%00ample/",
        ),
        *(
            "http://example.org\\@127.0.0.1/",
            "http://example.org\\.evil/",
            "http:\\\\example.org/",
            "http:///a",
            "http://",
        ),
        *("http://exam ple.org/", "http://example.org\t/", "http://example.org/\r\nHost: a", "\thttp://example.org/"),
        *("http://-a.org/", f"http://{'a' * 64}.org/", f"http://{'a.' * 130}org/", "http://a\u00ad\u2028.org/"),
        # users and ports
        *("http://user@example.org/", "http://user:word@example.org/", "http://@example.org/", "http://a:b@[::1]/"),
        *("http://example.org:/", "http://example.org:0/", "http://example.org:65536/", "http://example.org:080/"),
        *("http://example.org:٨٠/", "http://example.org:80:80/", "http://example.org:-1/", "http://example.org:8 0/"),
        # IPv6
        *(
            "http://[fe80::1%25eth0]/",
            "http://[::1",
            "http://::1/",
            "http://[::1]x/",
            "http://[]/",
            "http://[127.0.0.1]/",
        ),
        # schemes
        *("ftp://example.org/", "file:///etc/passwd", "//example.org/", "javascript:alert(1)", "http:example.org", ""),
    ],
)
def test_a_url_that_could_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(RefusedAddress) as caught:
        WebAddress.parse(url)
    assert len(str(caught.value).splitlines()) == 1 and "word" not in str(caught.value).replace("password", "")


@given(st.text(alphabet="0123456789abcdefx.[]:%@\\/。①ⓧ", max_size=24))
def test_a_host_that_the_system_reads_as_a_number_is_checked_as_that_number(host: str) -> None:
    try:
        address = WebAddress.parse(f"http://{host}/")
    except RefusedAddress:
        return
    try:
        found = socket.getaddrinfo(address.host, 80, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        assert not address.literal
        return
    assert address.literal and found[0][4][0] == address.host


def test_ports_and_hosts() -> None:
    rules = EgressRules(hosts=("example.org", "*.cdn.example", "8.8.8.8"))
    for url in ("http://example.org/", "https://a.b.cdn.example/", "https://8.8.8.8/"):
        rules.check(WebAddress.parse(url))
    for url in ("http://example.org:8080/", "https://cdn.example/", "https://a.example.org/", "http://8.8.4.4/"):
        with pytest.raises(RefusedAddress):
            rules.check(WebAddress.parse(url))
    EgressRules(ports=(9000,), private=True).check(WebAddress.parse("http://127.0.0.1:9000/"))
    with pytest.raises(RefusedAddress, match="port 80 is not allowed; allowed: 9000"):
        EgressRules(ports=(9000,), private=True).check(WebAddress.parse("http://127.0.0.1/"))


def test_a_root_may_be_private_and_nothing_beside_it() -> None:
    rules = EgressRules.of_root("http://10.0.0.1:9000/sets")
    rules.check(WebAddress.parse("http://10.0.0.1:9000/other"))
    for url in ("http://10.0.0.1:9001/", "http://10.0.0.1/", "http://10.0.0.2:9000/", "http://127.0.0.1/"):
        with pytest.raises(RefusedAddress):
            rules.check(WebAddress.parse(url))
    # from http to https
    EgressRules.of_root("http://10.0.0.1/sets").check(WebAddress.parse("https://10.0.0.1/sets"))
    assert EgressRules.of_root("http://[::1") == EgressRules.of_root("https://h:99999/") == EgressRules()
