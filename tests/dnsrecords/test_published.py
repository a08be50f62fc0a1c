from __future__ import annotations

import base64

import pytest

from dnsrecords.published import MalformedTsigKey, TsigKey

GOOD = 'key "update.example" {\n  algorithm hmac-sha256;\n  secret "c2VjcmV0";\n};\n'


def test_a_key_as_tsig_keygen_writes_it() -> None:
    assert TsigKey.parse(GOOD) == TsigKey("update.example", "hmac-sha256", b"secret")


@pytest.mark.parametrize("written", ['"q6//Zw=="', "q6//Zw==", '"//8="', '"q6//"', "q6//", "/w=="])
def test_a_secret_may_look_as_if_a_comment_began(written: str) -> None:
    text = GOOD.replace('"c2VjcmV0"', written)
    assert TsigKey.parse(text).secret == base64.b64decode(written.strip('"'))


def test_comments_and_the_absence_of_quotes_do_not_matter() -> None:
    text = "// x\nkey Update.example. { secret c2VjcmV0; /* y */ algorithm HMAC-SHA512; }; # z"
    assert TsigKey.parse(text) == TsigKey("update.example", "hmac-sha512", b"secret")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not of the form"),
        ("secret", "is not of the form"),
        (GOOD + GOOD, "is not of the form"),
        (GOOD.replace("algorithm hmac-sha256;", ""), "an algorithm and a secret"),
        (GOOD.replace("algorithm", "type rsa; algorithm"), "nothing else"),
        (GOOD.replace("hmac-sha256", "hmac-md5"), "algorithm is none of"),
        (GOOD.replace("c2VjcmV0", "c2VjcmV"), "not base64"),
        (GOOD.replace("c2VjcmV0", "===="), "not base64"),
    ],
)
def test_what_is_wrong_is_named_without_the_secret(text: str, complaint: str) -> None:
    with pytest.raises(MalformedTsigKey) as caught:
        TsigKey.parse(text)
    assert complaint in str(caught.value)
    assert "c2Vj" not in str(caught.value)


def test_the_secret_is_not_shown() -> None:
    assert "secret'" not in repr(TsigKey.parse(GOOD))
