from dnsrecords import errors
from dnsrecords.errors import RecordError, shown


def test_every_error_is_counted_under_a_name_of_its_own() -> None:
    classes = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, RecordError)
    ]
    assert len({each.trigger for each in classes}) == len(classes) == 11


def test_text_of_strangers_is_shown_short_and_in_ascii() -> None:
    assert shown("a") == "'a'"
    assert shown("\x1b[2J\n\u00e4") == "'\\x1b[2J\\n\\xe4'"
    assert shown("x" * 1000) == "'" + "x" * 64 + "...'"
