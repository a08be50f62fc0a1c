import pytest

from dnsrecords.errors import MalformedName
from dnsrecords.name import normal_fqdn

LONGEST = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("sg-a.example", "sg-a.example"),
        ("SG-A.Example.", "sg-a.example"),
        ("_ipsec.4.example", "_ipsec.4.example"),
        ("4.1.1.192.in-addr.arpa.", "4.1.1.192.in-addr.arpa"),
        (LONGEST, LONGEST),
        (LONGEST + ".", LONGEST),
    ],
)
def test_names(text: str, normal: str) -> None:
    assert normal_fqdn(text) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "-a.b",
        "a-.b",
        "a b",
        "a=b.c",
        "a.b\n",
        "\u00e4.b",
        "\u212a.b",
        "a\0.b",
        "192.1.1.5",
        "a/b.c",
        "a" * 64 + ".b",
        "a" + LONGEST,
        "x." + LONGEST,
    ],
)
def test_no_names(text: str) -> None:
    with pytest.raises(MalformedName) as caught:
        normal_fqdn(text)
    assert caught.value.trigger == "domain_name_malformed"
    assert str(caught.value).isascii()
    assert len(str(caught.value)) < 200
