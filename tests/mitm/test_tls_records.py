"""Records of TLS, counted by what stands in front of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presign_proxy.mitm.tls_records import LONGEST, SHORT, TURN_RECORDS, RecordGate, Slots


def record(size: int) -> bytes:
    return b"\x17\x03\x03" + size.to_bytes(2, "big") + bytes(size)


def taken(gate: RecordGate, data: bytes) -> list[int]:
    """The bytes that go through in each turn."""
    gate.add(data)
    turns = [len(gate.take())]
    while gate.is_ready:
        turns.append(len(gate.take()))
    return turns


@pytest.mark.parametrize("size", [0, 1, 17, SHORT - 1])
def test_a_client_that_changes_its_key_thousands_of_times_has_64_of_them_handled_in_a_turn(size: int) -> None:
    """64 KiB of them took 20 milliseconds, and 32 clients made everybody else wait for four seconds."""
    found = taken(RecordGate(), record(size) * 1000)
    assert found == [TURN_RECORDS * (5 + size)] * 15 + [40 * (5 + size)]


def test_records_of_ordinary_size_go_through_at_once() -> None:
    data = record(SHORT) * 200 + record(16_384) * 4 + record(20) * (TURN_RECORDS - 1)
    assert taken(RecordGate(), data) == [len(data)]


def test_a_record_goes_through_as_it_comes() -> None:
    gate = RecordGate()
    assert taken(gate, record(16_000)[:5000]) == [5000]
    assert taken(gate, record(16_000)[5000:]) == [11_005]
    assert taken(gate, record(9)) == [14]


def test_of_a_record_whose_length_is_not_there_nothing_goes_through() -> None:
    gate = RecordGate()
    assert taken(gate, record(9)[:4]) == [0]
    assert taken(gate, record(9)[4:]) == [14]


def test_what_is_the_last_goes_through_though_it_is_cut() -> None:
    gate = RecordGate()
    gate.add(record(1) * 100 + record(9)[:3])
    gate.take()
    assert len(gate.take_all()) == 36 * 6 + 3
    assert not gate.is_ready


@given(before=st.binary(max_size=40), data=st.one_of(st.binary(max_size=40), st.integers(0, 30).map(record)))
def test_what_passes_by_the_gate_is_what_would_have_gone_through_it(before: bytes, data: bytes) -> None:
    gate = RecordGate()
    gate.add(before)
    gate.take()
    if gate.needs_no_turn(data):
        gate.add(data)
        assert gate.take() == data
        assert not gate.is_ready
        assert gate.needs_no_turn(record(1)), "nothing of it is left behind"


def test_only_one_whole_record_behind_whole_ones_passes_by_the_gate() -> None:
    gate = RecordGate()
    assert gate.needs_no_turn(record(0))
    assert gate.needs_no_turn(record(16_384))
    assert not gate.needs_no_turn(b"")
    assert not gate.needs_no_turn(record(0)[:4])
    assert not gate.needs_no_turn(record(9)[:-1])
    assert not gate.needs_no_turn(record(9) + record(9))
    gate.add(record(9)[:3])
    assert not gate.needs_no_turn(record(9)), "the beginning of another one waits"
    gate.take()
    gate.add(record(9)[3:10])
    gate.take()
    assert not gate.needs_no_turn(record(9)), "the rest of another one is to come"


@given(st.lists(st.integers(0, 3000), max_size=300), st.integers(1, 2000))
def test_no_byte_is_lost_or_moved_however_it_is_cut(sizes: list[int], cut: int) -> None:
    sent = b"".join(map(record, sizes))
    gate, got = RecordGate(), b""
    for at in range(0, len(sent), cut):
        gate.add(sent[at : at + cut])
        got += gate.take()
        while gate.is_ready:
            got += gate.take()
    assert got == sent


def test_turns_of_many_connections_come_one_after_the_other_and_leave_half_of_the_time() -> None:
    slots = Slots()
    delays = [slots.delay(100.0, 0.01) for _ in range(4)]
    assert delays == pytest.approx([0.01, 0.03, 0.05, 0.07])


def test_a_turn_that_waited_for_something_else_holds_up_nobody_for_long() -> None:
    slots = Slots()
    slots.delay(100.0, 30.0)
    assert slots.delay(100.0, 0.0) == pytest.approx(3 * LONGEST)
