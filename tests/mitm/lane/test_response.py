"""A response on its way to one client: whole, masked, and no faster than the client takes it."""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from presign_proxy.core.masking import Mask
from presign_proxy.core.response_body import TURN, Body
from presign_proxy.mitm.lane import response as module
from presign_proxy.mitm.lane.response import PIECE, Delivery

SECRET = b"sk-REALSECRET-0123456789"
HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
PATIENCE = 5.0


class Client:
    """The lane, as far as a delivery sees it; and the exchange."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.is_full = False
        self.go_on: list[Callable[[], None]] = []
        self.told: list[Any] = []
        self.ended = False
        self.fails_at = ""
        self.delivery = Delivery(self, self)  # type: ignore[arg-type]

    def send(self, data: bytes) -> None:
        if self.fails_at == "send":
            raise ZeroDivisionError
        self.sent.append(data)

    def when_drained(self, go_on: Callable[[], None]) -> None:
        self.go_on.append(go_on)

    def _note(self, what: Any) -> None:
        self.told.append(what)
        if what == self.fails_at:
            raise ZeroDivisionError

    def pause(self) -> None:
        self._note("pause")

    def resume(self) -> None:
        self._note("resume")

    def passed_on(self) -> None:
        self._note("passed on")

    def spoilt(self, why: str) -> None:
        self._note(("spoilt", why))

    def collapse(self, error: Exception) -> None:
        self._note(("collapse", type(error).__name__))

    def begin(self, *, chunked: bool = False, mask: Mask | None = None, encoded: bool = False) -> Delivery:
        self.delivery.begin(HEAD, Body(mask or Mask(()), encoded=encoded), chunked=chunked)
        return self.delivery

    def take(self) -> None:
        """It has taken what there was."""
        self.is_full = False
        self.go_on.pop()()

    @property
    def all(self) -> bytes:
        return b"".join(self.sent)


def story(work: Callable[[Client], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            await work(Client())

    asyncio.run(main())


def test_a_response_is_passed_on_as_it_comes() -> None:
    async def work(client: Client) -> None:
        delivery = client.delivery
        assert (delivery.size, delivery.has_head, delivery.begun) == (0, False, False)
        client.begin()
        assert (delivery.size, delivery.has_head, delivery.begun) == (0, True, False)
        delivery.add(b"so")
        delivery.add(b"me")
        assert client.sent == []
        delivery.pump()
        assert client.sent == [HEAD + b"some"]
        assert (delivery.size, delivery.has_head, delivery.begun) == (4, True, True)
        assert client.told == []
        delivery.pump()
        assert client.sent == [HEAD + b"some"]
        delivery.add(b"more")
        delivery.end()
        assert client.told == ["passed on"]
        assert client.sent == [HEAD + b"some"], "what ends it goes with the last of it"
        delivery.close()
        assert client.sent == [HEAD + b"some", b"more"]
        assert delivery.size == 8

    story(work)


def test_a_head_alone_is_passed_on() -> None:
    async def work(client: Client) -> None:
        client.begin().pump()
        assert client.sent == [HEAD]

    story(work)


def test_what_comes_before_any_head_waits_for_it() -> None:
    async def work(client: Client) -> None:
        client.delivery.end()
        assert (client.sent, client.told) == ([], [])

    story(work)


def test_each_piece_is_a_chunk_and_the_end_is_said() -> None:
    async def work(client: Client) -> None:
        delivery = client.begin(chunked=True)
        delivery.add(b"x" * 17)
        delivery.pump()
        assert client.sent == [HEAD + b"11\r\n" + b"x" * 17 + b"\r\n"]
        delivery.end()
        delivery.close()
        assert client.sent[1:] == [b"0\r\n\r\n"]

    story(work)


def test_a_response_that_is_not_chunked_has_no_end_of_its_own() -> None:
    async def work(client: Client) -> None:
        delivery = client.begin()
        delivery.end()
        delivery.close()
        delivery.close()
        assert client.sent == [HEAD]

    story(work)


def test_what_was_put_in_and_let_go_of_is_never_sent() -> None:
    """An answer of ours has taken its place."""

    async def work(client: Client) -> None:
        delivery = client.begin()
        delivery.add(b"some")
        delivery.let_go()
        delivery.pump()
        delivery.end()
        assert (client.sent, client.told, delivery.begun) == ([], [], False)

    story(work)


def test_what_is_large_goes_out_in_pieces() -> None:
    assert PIECE == 64 * 1024

    async def work(client: Client) -> None:
        delivery = client.begin()
        delivery.add(b"x" * (PIECE - 1))
        delivery.pump()
        assert len(client.sent) == 1
        expanding = Client()
        packed = expanding.begin(encoded=True)
        packed.add(gzip.compress(bytes(3 * PIECE)))
        packed.pump()
        assert [len(one) for one in expanding.sent] == [len(HEAD) + PIECE, PIECE, PIECE]
        assert packed.size < PIECE

    story(work)


def test_small_pieces_of_one_turn_go_out_together_and_are_counted_anew() -> None:
    """Each member of what is packed is a piece by itself."""

    async def work(client: Client) -> None:
        delivery = client.begin(encoded=True)
        delivery.add(b"".join(gzip.compress(bytes(PIECE // 2)) for _ in range(5)))
        delivery.pump()
        assert [len(one) for one in client.sent] == [len(HEAD) + PIECE, PIECE, PIECE // 2]

    story(work)


def test_pieces_are_counted_to_the_byte() -> None:
    async def work(client: Client) -> None:
        delivery = client.begin(encoded=True)
        delivery.add(b"".join(gzip.compress(bytes(size)) for size in (PIECE - 1, 1, PIECE - 1, 1)))
        delivery.pump()
        assert [len(one) for one in client.sent] == [len(HEAD) + PIECE, PIECE]

    story(work)


def test_what_is_less_than_a_turn_goes_on_without_one() -> None:
    async def work(client: Client) -> None:
        delivery = client.begin(encoded=True)
        delivery.add(gzip.compress(bytes(TURN - 1)))
        delivery.pump()
        assert (len(client.all), client.told) == (len(HEAD) + TURN - 1, [])

    story(work)


def test_a_response_that_has_not_begun_has_no_end() -> None:
    async def work(client: Client) -> None:
        client.delivery.close()
        assert client.sent == []

    story(work)


# -- a client that does not take it -----------------------------------------------------------------------


def test_nothing_is_passed_on_while_the_client_does_not_take_it() -> None:
    async def work(client: Client) -> None:
        delivery = client.begin(encoded=True)
        client.is_full = True
        delivery.add(gzip.compress(bytes(3 * PIECE)))
        delivery.pump()
        assert len(client.all) == len(HEAD) + PIECE
        assert client.told == ["pause"]
        delivery.add(b"")
        delivery.pump()
        delivery.end()
        assert len(client.all) == len(HEAD) + PIECE
        assert client.told == ["pause"]
        client.take()
        assert len(client.all) == len(HEAD) + 3 * PIECE
        assert client.told == ["pause", "resume", "passed on"]
        assert client.go_on == []

    story(work)


def test_what_is_packed_a_thousandfold_lets_others_have_their_turn() -> None:
    async def work(client: Client) -> None:
        delivery = client.begin(encoded=True)
        delivery.add(gzip.compress(bytes(2 * TURN + PIECE)))
        delivery.pump()
        assert len(client.all) == len(HEAD) + TURN
        assert client.told == ["pause"]
        delivery.end()
        assert len(client.all) == len(HEAD) + TURN
        await asyncio.sleep(0)
        assert len(client.all) == len(HEAD) + 2 * TURN
        await asyncio.sleep(0)
        assert len(client.all) == len(HEAD) + 2 * TURN + PIECE
        assert client.told == ["pause", "resume", "pause", "resume", "passed on"]

    story(work)


def test_nothing_is_passed_on_of_an_exchange_that_has_ended() -> None:
    async def work(client: Client) -> None:
        delivery = client.begin()
        delivery.add(b"some")
        client.ended = True
        delivery.pump()
        delivery.end()
        assert (client.sent, client.told) == ([], [])

    story(work)


def test_an_exchange_that_is_over_is_told_nothing_more() -> None:
    async def work(client: Client) -> None:
        delivery = client.begin(encoded=True)
        client.is_full = True
        delivery.add(gzip.compress(bytes(2 * PIECE)))
        delivery.pump()
        delivery.let_go()
        client.take()
        assert client.told == ["pause"]
        assert len(client.all) == len(HEAD) + PIECE

    story(work)


def test_whoever_fails_when_it_goes_on_is_ended() -> None:
    async def work(client: Client) -> None:
        delivery = client.begin(encoded=True)
        client.is_full, client.fails_at = True, "resume"
        delivery.add(gzip.compress(bytes(2 * PIECE)))
        delivery.pump()
        client.take()
        assert client.told == ["pause", "resume", ("collapse", "ZeroDivisionError")]

    story(work)


# -- what cannot be read, and what must not be ------------------------------------------------------------


def test_a_body_that_cannot_be_decoded_is_spoilt_and_told_without_its_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(client: Client) -> None:
        delivery = client.begin(encoded=True)
        delivery.add(b"not gzip at all " + SECRET)
        delivery.pump()
        assert client.told == [("spoilt", "the response cannot be decoded")]
        assert client.sent == []

    with caplog.at_level(logging.WARNING, "presign_proxy"):
        story(work)
    assert "DecodingError" in caplog.text
    assert SECRET.decode() not in caplog.text


def test_a_packed_body_that_breaks_off_is_spoilt_at_its_end() -> None:
    async def work(client: Client) -> None:
        delivery = client.begin(encoded=True)
        delivery.add(gzip.compress(b"whole" * 1000)[:-9])
        delivery.pump()
        assert client.told == []
        delivery.end()
        assert client.told == [("spoilt", "the response cannot be decoded")]

    story(work)


def test_a_credential_in_pieces_is_hidden_and_its_beginning_waits_for_the_rest() -> None:
    async def work(client: Client) -> None:
        delivery = client.begin(mask=Mask((SECRET,)))
        delivery.add(b"key=" + SECRET[:9])
        delivery.pump()
        assert client.all == HEAD + b"key="
        delivery.add(SECRET[9:] + b";")
        delivery.pump()
        assert client.all == HEAD + b"key=" + b"*" * len(SECRET) + b";"
        delivery.add(SECRET[:9])
        delivery.end()
        delivery.close()
        assert client.all.endswith(b";" + SECRET[:9]), "at the end it is known to be none"

    story(work)


SHORT = SECRET[:2]
"""So little of a credential may be shown."""


def test_the_last_letter_of_a_word_goes_on_after_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.005)

    async def work(client: Client) -> None:
        delivery = client.begin(mask=Mask((SECRET,)))
        delivery.add(b"words" + SHORT)
        delivery.pump()
        assert client.all == HEAD + b"words"
        timer = delivery._timer
        assert timer is not None
        delivery.pump()
        assert delivery._timer is timer, "one is enough"
        await asyncio.sleep(0.03)
        assert client.all == HEAD + b"words" + SHORT
        assert delivery._timer is None
        delivery.add(b" and more")
        delivery.pump()
        assert client.all == HEAD + b"words" + SHORT + b" and more"

    story(work)


def test_nothing_waits_for_a_moment_where_nothing_is_held_back() -> None:
    async def work(client: Client) -> None:
        delivery = client.begin(mask=Mask((SECRET,)))
        delivery.add(b"a word!")
        delivery.pump()
        assert delivery._timer is None

    story(work)


@pytest.mark.parametrize("why", ["paused", "complete", "ended", "over", "nothing"])
def test_after_a_moment_nothing_goes_on_where_that_is_nobodys_turn(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.005)

    async def work(client: Client) -> None:
        delivery = client.begin(mask=Mask((SECRET,)))
        delivery.add(b"words" + SHORT)
        delivery.pump()
        if why == "paused":
            client.is_full = True
            delivery.add(b"x" + SHORT)
            delivery.pump()
        elif why == "complete":
            client.fails_at = ""
            delivery._pieces.complete = True
        elif why == "ended":
            client.ended = True
        elif why == "over":
            delivery.let_go()
        else:
            delivery.add(b"none")
            delivery.pump()
        before = list(client.sent)
        await asyncio.sleep(0.03)
        assert client.sent == before
        assert client.told == (["pause"] if why == "paused" else [])

    story(work)


def test_whoever_fails_after_a_moment_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.005)

    async def work(client: Client) -> None:
        delivery = client.begin(mask=Mask((SECRET,)))
        delivery.add(b"words" + SHORT)
        delivery.pump()
        client.fails_at = "send"
        await asyncio.sleep(0.03)
        assert client.told == [("collapse", "ZeroDivisionError")]

    story(work)


def test_whoever_is_let_go_waits_for_nothing_more() -> None:
    """What refers to each other waits for a garbage collection, during which every client waits."""

    async def work(client: Client) -> None:
        delivery = client.begin(mask=Mask((SECRET,)))
        delivery.add(b"words" + SHORT)
        delivery.pump()
        timer = delivery._timer
        assert timer is not None
        delivery.let_go()
        assert timer.cancelled()
        assert delivery._timer is None
        assert delivery._source is not client
        assert delivery._source.ended
        delivery.let_go()

    story(work)
