"""What stands at the very beginning: a token, an escape or a separator there is found as it is further on."""

from __future__ import annotations

import base64

import pytest

from presign_proxy.core.decision import Deny
from presign_proxy.http.message import Request
from presign_proxy.signing.carrier_names import NAMES, TERMS
from presign_proxy.signing.tokens import has_start, holds_token
from support.deciding import NOW, SECRET, ask, code, request, signed
from support.policy import Policy
from support.signing import presign_headers, presign_params, token

ONE = token(SECRET, "conn", NOW + 60, "GET", "v1/*")
TWO = Policy(SECRET, {"Id": "a"}).token
API = {"host": "api.example.com", "scheme": "https"}


def led_by(name: bytes, value: bytes, *fields: tuple[bytes, bytes]) -> Request:
    """To the API, with that field before `Host`."""
    asked = request("/v1/models", *fields, **API)
    return asked._replace(fields=((name, value), *asked.fields))


@pytest.mark.parametrize("whole", [ONE, TWO])
def test_a_token_that_is_all_of_a_text_is_found_in_it(whole: str) -> None:
    for prefix in ("", "a"):
        assert has_start(f"{prefix}{whole}".encode())
        assert holds_token(f"{prefix}{whole}".encode())
    escaped = f"%70{whole[1:]}".encode()
    assert holds_token(escaped)
    assert holds_token(escaped.replace(b"%", b"%25"))
    assert not holds_token(f"{whole[3:]}".encode())


@pytest.mark.parametrize("whole", [ONE, TWO])
def test_a_token_in_the_first_header_does_not_pass_through(whole: str) -> None:
    assert code(led_by(b"X-Api-Key", whole.encode())) == "malformed"
    assert code(led_by(b"Authorization", f"Bearer {whole}".encode())) == "forward"
    password = base64.b64encode(f"user:{whole}".encode())
    assert code(led_by(b"Authorization", b"Basic " + password)) == "forward"
    assert code(led_by(b"Proxy-Authorization", b"Basic " + password)) == "malformed"


def test_a_first_header_that_is_called_presign_hides_no_presign() -> None:
    fields = presign_headers(SECRET, "conn", NOW + 60, "GET", "v1/*").items()
    pairs = [(name.encode(), value.encode()) for name, value in fields]
    assert code(led_by(b"Presign", b"1", *pairs)) == "forward"
    assert code(led_by(b"Presign", b"1")) == "pass"
    assert code(led_by(b"My-Presign", b"1")) == "pass"


@pytest.mark.parametrize("whole", [ONE, TWO])
def test_an_escape_at_the_beginning_of_a_query_hides_no_token(whole: str) -> None:
    assert code(request(f"/v1/models?%70{whole[1:]}", **API)) == "malformed"


@pytest.mark.parametrize("name", ["%58-P%72esign-Key", "%58-Presign-Key", "X-P%72esign-Key", "x-presign-key"])
def test_an_escape_at_the_beginning_of_a_query_hides_no_field(name: str) -> None:
    assert code(request(f"/v1/models?{name}=1", **API)) == "malformed"
    target, _, query = signed().partition("?")
    assert code(request(f"{target}?{name}=1&{query}")) == "malformed"
    assert code(request(f"{target}?{query}&{name}=1")) == "malformed"


@pytest.mark.parametrize("separator", [";", "?"])
@pytest.mark.parametrize("first", ["", "{}&", "a&"])
def test_a_field_behind_a_separator_is_malformed_wherever_the_first_one_stands(
    first: str, separator: str
) -> None:
    """A parser that splits there too would read another list of methods than was verified."""

    def told(paths: str) -> str:
        fields = presign_params(SECRET, "conn", NOW + 60, "GET", paths)
        query = "&".join(f"{name}={value}" for name, value in fields.items())
        return code(request(f"/api/proxy/conn/v1/models?{first.format(separator)}{query}"))

    assert told(f"a{separator}b,v1/*") == "forward"
    assert told(f"a{separator}X-Presign-Methods=*,v1/*") == "malformed"
    assert told(f"a{separator}b{separator}X-Presign-Methods=*,v1/*") == "malformed"


@pytest.mark.parametrize(("mark", "escape"), [(";", "%3B"), ("?", "%3F")])
def test_a_list_in_which_some_parser_finds_another_field_is_malformed_whoever_signed_it(
    mark: str, escape: str
) -> None:
    def granted(more: str) -> str:
        asked = signed(paths=f"v1/*,x{mark}{more}").replace(escape, mark).replace("%3D", "=")
        return code(request(asked))

    for name in ("X-Presign-Paths", "x-presign-paths"):
        assert granted(f"{name}=*") == "malformed"
    assert granted("X-Pre=*") == "forward"


@pytest.mark.parametrize("name", ["x_presign_expires", "X.Presign.Key", "x-presign-id"])
def test_too_many_parameters_hide_no_field_and_no_token(name: str) -> None:
    crowd = "&".join(["a=1"] * 1001)
    assert code(request(f"/v1/models?{crowd}", **API)) == "pass"
    for hidden in (f"{name}=1", f"key={ONE}", f"key=%70{ONE[1:]}"):
        assert code(request(f"/v1/models?{crowd}&{hidden}", **API)) == "malformed"


@pytest.mark.parametrize("name", ["x_presign_expires", "X.Presign.Key", "x-presign-id"])
def test_a_first_parameter_that_is_called_presign_hides_no_field(name: str) -> None:
    target, _, query = signed().partition("?")
    assert code(request(f"{target}?presign=1&{query}")) == "forward"
    assert code(request(f"{target}?presign=1&{name}=1&{query}")) == "malformed"


@pytest.mark.parametrize("name", ["x_presign_expires", "X.Presign.Key", "x-presign-id"])
def test_a_first_parameter_that_is_called_resign_hides_no_field(name: str) -> None:
    assert code(request("/v1/models?resign=1", **API)) == "pass"
    assert code(request(f"/v1/models?resign=1&{name}=1", **API)) == "malformed"


@pytest.mark.parametrize("name", [*NAMES.values(), *TERMS.values()])
@pytest.mark.parametrize("at", [0, 500, 1000])
def test_a_field_among_too_many_parameters_is_refused_for_those(at: int, name: str) -> None:
    pieces = ["a=1"] * 1000
    pieces.insert(at, f"{name}=1")
    decision = ask(request(f"/api/proxy/conn/v1/models?{'&'.join(pieces)}"))
    assert isinstance(decision, Deny)
    assert (decision.code, decision.detail) == ("malformed", "the query holds more than 1000 parameters")


@pytest.mark.parametrize("whole", [ONE, TWO])
@pytest.mark.parametrize("first", [True, False])
def test_a_token_beside_a_presign_in_the_query_is_not_passed_on(first: bool, whole: str) -> None:
    target, _, query = signed().partition("?")
    for token_in_it in (f"key={whole}", f"key=%70{whole[1:]}", f"%6Bey=%70{whole[1:]}"):
        pieces = [token_in_it, query]
        assert code(request(f"{target}?{'&'.join(pieces if first else pieces[::-1])}")) == "malformed"
    assert code(request(f"{target}?{query}&key=%70")) == "forward"


def test_a_field_in_a_path_is_found_behind_its_escapes() -> None:
    assert code(request("/v1/x-p%72esign-key=1", **API)) == "malformed"
    assert code(request("/v1/x-p%72esign", **API)) == "pass"


def test_two_slashes_behind_a_token_in_the_path_are_one() -> None:
    assert code(request(f"/p/{ONE}//v1/models")) == "forward"


def test_a_token_among_too_many_parameters_is_refused_before_it_is_read() -> None:
    decision = ask(request(f"/v1/models?{'&'.join(['a=1'] * 1001)}&key={ONE}", **API))
    assert isinstance(decision, Deny)
    assert decision.detail == "the query holds more than 1000 parameters"
