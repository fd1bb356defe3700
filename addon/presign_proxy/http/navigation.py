"""Recognition of a browser that opens a page, and of programs that look at a link before a person does."""

from __future__ import annotations

from typing import Final

from .message import Fields, Head

_HTML: Final = b"text/html"
_ANYTHING: Final = b"*/*"
_JSON: Final = b"application/json"
_MOST: Final = 1024
"""Bytes of Accept that are looked at: browsers send 60 to 200. This is done before anything is verified."""
_OF_JAVA: Final = ((b"image/gif", b"image/jpeg", b"*", _ANYTHING), (b"image/gif", b"image/jpeg", _ANYTHING))
"""What follows text/html in the default of Java's HttpURLConnection, which many SDKs send unchanged."""

_PURPOSES: Final = (b"sec-purpose", b"purpose", b"x-purpose", b"x-moz")
_AHEAD: Final = (b"prefetch", b"prerender", b"preview")
_PREVIEWS: Final = (
    b"slackbot-linkexpanding", b"slack-imgproxy", b"twitterbot/", b"facebookexternalhit/", b"facebot",
    b"whatsapp/", b"telegrambot (", b"discordbot/", b"linkedinbot/", b"skypeuripreview", b"mattermost-bot/",
    b"redditbot/", b"pinterestbot/", b"iframely/", b"embedly/", b"mastodon/", b"bluesky cardyb/",
    b"google-pagerenderer", b"bingpreview/", b"synapse (bot; ",
)  # fmt: skip
"""Programs that show previews of links, as they name themselves in User-Agent.

The names are exact, because clients of APIs have similar ones: those of Discord must be `DiscordBot (…)`.
"""


def looks_ahead(fields: Fields, head: Head) -> bool:
    """Return whether a program looks at a link before a person opens it: a prefetch, or a link preview."""
    if head.joined.find(b"purpose") >= 0 or head.joined.find(b"x-moz") >= 0:
        said = [value.lower() for name, value in fields if name.lower() in _PURPOSES]
        if any(value.find(word) >= 0 for value in said for word in _AHEAD):
            return True
    agents = [value.lower() for name, value in fields if name.lower() == b"user-agent"]
    return any(agent.find(name) >= 0 for agent in agents for name in _PREVIEWS)


def is_browser(fields: Fields, head: Head) -> bool:
    """Return whether a browser sends a request, of a page or for its parts (Fetch Metadata)."""
    return head.joined.find(b"sec-fetch-") >= 0 or is_navigation(fields, head)


def is_navigation(fields: Fields, head: Head) -> bool:
    """Return whether a person reads the answer, in a browser.

    A browser says so itself (Fetch Metadata, `Sec-Fetch-Mode: navigate`). Where that field is missing, the
    request must ask for HTML before anything else that an API would answer with.
    """
    if head.joined.find(b"sec-fetch-mode") >= 0:
        modes = [value.strip() for name, value in fields if name.lower() == b"sec-fetch-mode"]
        if modes:
            return modes == [b"navigate"]
    if head.values.find(_HTML) < 0:
        return False
    accepted = b",".join([value for name, value in fields if name.lower() == b"accept"])
    if len(accepted) > _MOST:
        return False
    kinds = [item.partition(b";")[0].strip().lower() for item in accepted.split(b",")]
    if _HTML not in kinds or tuple(kinds[1:]) in _OF_JAVA:
        return False
    before = kinds[: kinds.index(_HTML)]
    return _ANYTHING not in before and _JSON not in before
