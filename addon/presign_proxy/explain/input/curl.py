"""A curl command line: which request curl would make of it. What curl itself would do differently for an
option that is not known here is not guessed: such a command is refused.
"""

from __future__ import annotations

import base64
from typing import Final, NamedTuple
from urllib.parse import quote

from . import shell_words
from .urls import UnreadableUrl


def _words(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


_SHORT: Final = {
    letter: name
    for letter, _, name in (
        pair.partition("=")
        for pair in _words(
            "X=request H=header d=data F=form I=head G=get u=user A=user-agent b=cookie e=referer",
            "T=upload-file o=output x=proxy k=insecure s=silent S=show-error v=verbose i=include L=location",
            "f=fail N=no-buffer m=max-time w=write-out O=remote-name D=dump-header c=cookie-jar g=globoff",
            "q=disable J=remote-header-name E=cert U=proxy-user p=proxytunnel #=progress-bar 0=http1.0",
            "4=ipv4 6=ipv6",
        )
    )
}
_REQUEST: Final = _words(
    "request header data data-raw data-binary data-ascii data-urlencode json form form-string user",
    "user-agent cookie referer upload-file url proxy oauth2-bearer url-query",
)
_VALUES: Final = _REQUEST | _words(
    "output max-time connect-timeout write-out dump-header cookie-jar cacert capath resolve connect-to retry",
    "retry-delay retry-max-time limit-rate cert key proxy-user interface max-redirs tls-max ciphers noproxy",
    "proxy-cacert trace trace-ascii stderr keepalive-time expect100-timeout",
)
_FLAGS: Final = _words(
    "head get insecure silent show-error verbose include location fail fail-with-body no-buffer remote-name",
    "globoff disable remote-header-name proxytunnel progress-bar http1.0 http1.1 http2 http3",
    "http2-prior-knowledge ipv4 ipv6 compressed path-as-is no-progress-meter retry-all-errors",
    "retry-connrefused tlsv1.2 tlsv1.3 ssl-no-revoke tcp-nodelay no-keepalive proxy-insecure create-dirs",
    "location-trusted trace-time post301 post302 post303",
)
_FIELDS: Final = {"user-agent": "User-Agent", "referer": "Referer", "cookie": "Cookie"}
_DATA: Final = _words("data data-raw data-binary data-ascii data-urlencode json form form-string")
_FORMS: Final = frozenset(("form", "form-string"))


class Command(NamedTuple):
    """The request of a curl command: header fields in order, without `Host`; `proxy` as it was given."""

    url: str
    method: str
    fields: tuple[tuple[str, str], ...]
    proxy: str | None
    assumed: tuple[str, ...]


def parse(text: str) -> Command:
    """The request that curl would send. Raises Unreadable."""
    words, end = shell_words.split(text)
    options, urls = _options(words[1:])
    if len(urls) != 1:
        raise UnreadableUrl(f"the curl command has {len(urls)} URLs: one is needed")
    given = dict(options)
    assumed = list(_cut(end))
    url = _with_query(urls[0], options)
    if "globoff" not in given and any(char in url for char in "{}[]") and "://[" not in url:
        raise UnreadableUrl("curl expands {} and [] in a URL: percent-encode them, or give -g")
    if "path-as-is" not in given:
        url = _squashed(url, assumed)
    return Command(url, _method(given), _fields(options), given.get("proxy"), tuple(assumed))


def _cut(end: str) -> tuple[str, ...]:
    if end == "&":
        return ("An & without quotes ends the command in a shell: what follows it is not part of the URL.",)
    return ("Only the first command of the line was read.",) if end else ()


def _options(words: tuple[str, ...]) -> tuple[list[tuple[str, str]], list[str]]:
    """(option, value) in order, and the URLs."""
    options: list[tuple[str, str]] = []
    urls: list[str] = []
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        if word.startswith("--") and len(word) > 2:
            names: list[tuple[str, str | None]] = [(word[2:], None)]
        elif word.startswith("-") and len(word) > 1:
            names = _shorts(word[1:])
        else:
            urls.append(word)
            continue
        for name, attached in names:
            value = ""
            if name in _VALUES:
                if attached is None and not rest:
                    raise UnreadableUrl(f"curl's --{name} wants a value")
                value = rest.pop() if attached is None else attached
            elif name not in _FLAGS:
                raise UnreadableUrl(_unknown(name))
            if name == "url":
                urls.append(value)
            else:
                options.append((name, value))
    return options, urls


def _unknown(name: str) -> str:
    # An option is a short word; anything longer may be something that was pasted into its place.
    shown = f" --{name}" if len(name) <= 24 and name.replace("-", "").isalnum() else ""
    return f"the curl command has an option that is not known here{shown}: leave it out if it does not matter"


def _shorts(letters: str) -> list[tuple[str, str | None]]:
    """Combined short options: `-sXPOST` is `-s -X POST`."""
    found: list[tuple[str, str | None]] = []
    for at, letter in enumerate(letters):
        name = _SHORT.get(letter)
        if name is None:
            raise UnreadableUrl(f"the curl command has an option that is not known here: -{letter}")
        if name in _VALUES:
            return [*found, (name, letters[at + 1 :] or None)]
        found.append((name, None))
    return found


def _method(given: dict[str, str]) -> str:
    if "request" in given:
        return given["request"]
    if "head" in given:
        return "HEAD"
    if "upload-file" in given:
        return "PUT"
    return "POST" if "get" not in given and not _DATA.isdisjoint(given) else "GET"


def _fields(options: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The header of the request: what curl sends by itself unless `-H` says otherwise, then the rest."""
    own = {"User-Agent": "curl", "Accept": "*/*"}
    given: list[tuple[str, str | None]] = []
    for name, value in options:
        if name == "user":
            own["Authorization"] = "Basic " + base64.b64encode(_with_password(value).encode()).decode()
        elif name == "oauth2-bearer":
            own["Authorization"] = f"Bearer {value}"
        elif name == "compressed":
            own["Accept-Encoding"] = "deflate, gzip"
        elif name in _FIELDS:
            own[_FIELDS[name]] = value
        elif name == "header":
            given.append(_header(value))
    if "get" not in dict(options):
        own |= _content({name for name, _ in options})
    named = {name.lower() for name, _ in given}
    kept = [(name, value) for name, value in own.items() if name.lower() not in named]
    return (*kept, *((name, value) for name, value in given if value is not None))


def _content(names: set[str]) -> dict[str, str]:
    if "json" in names:
        return {"Content-Type": "application/json", "Accept": "application/json"}
    if not _FORMS.isdisjoint(names):
        return {"Content-Type": "multipart/form-data; boundary=curl"}
    return {} if _DATA.isdisjoint(names) else {"Content-Type": "application/x-www-form-urlencoded"}


def _with_password(user: str) -> str:
    # curl asks for a password that is missing; people press return.
    return user if ":" in user else f"{user}:"


def _header(text: str) -> tuple[str, str | None]:
    """`Name: value`, or `Name;` for an empty value; None for `Name:`, which takes a header out."""
    if text.startswith("@"):
        raise UnreadableUrl("the curl command reads headers from a file: put them there")
    name, colon, value = text.partition(":")
    if colon:
        return name.strip(), value.strip(" \t") or None
    if text.endswith(";"):
        return text[:-1].strip(), ""
    raise UnreadableUrl("a header of the curl command has no colon")


def _with_query(url: str, options: list[tuple[str, str]]) -> str:
    """The URL with what `-G` and `--url-query` put into its query."""
    as_query = any(name == "get" for name, _ in options)
    pieces: list[str] = []
    for name, value in options:
        if name == "url-query" or (as_query and name == "data-urlencode"):
            pieces.append(_urlencoded(value))
        elif as_query and name in _DATA:
            if value.startswith("@") and name != "data-raw":
                raise UnreadableUrl("the curl command reads its query from a file: put it there")
            pieces.append(value)
    if not pieces:
        return url
    before, mark, fragment = url.partition("#")
    return before + ("&" if "?" in before else "?") + "&".join(pieces) + mark + fragment


def _urlencoded(value: str) -> str:
    """`content`, `=content` and `name=content`, of which curl encodes the content."""
    if value.startswith("+"):
        return value[1:]
    name, equals, content = value.partition("=")
    if "@" in (value if not equals else name):
        raise UnreadableUrl("the curl command reads its query from a file: put it there")
    encoded = quote(content if equals else value, safe="")
    return f"{name}={encoded}" if equals and name else encoded


def _squashed(url: str, assumed: list[str]) -> str:
    """The URL without `.` and `..` segments, which curl resolves (RFC 3986, 5.2.4)."""
    start = url.find("://") + 3
    path_at = url.find("/", start) if start > 2 else url.find("/")
    cut = min((at for at in (url.find("?"), url.find("#")) if at >= 0), default=len(url))
    if path_at < 0 or path_at >= cut:
        return url
    segments = url[path_at + 1 : cut].split("/")
    if not {".", ".."}.intersection(segments):
        return url
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    assumed.append("curl resolves the . and .. segments of a path itself (unless --path-as-is is given).")
    return url[: path_at + 1] + "/".join(kept) + url[cut:]
