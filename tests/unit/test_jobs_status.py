"""The merge rules of the device protocol, section 6, one by one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.jobs.domain.requests import answers_to, as_json, down
from services.jobs.domain.status import MAX_BYTES, MAX_KEYS, Entries, Entry, Merged, Status, is_state, merge, same_json

SPOOL = "00112233445566ff"
WANTED = Entry(5, '{"args":{"rpm":900}}')


def message(number: int, spool: str = SPOOL) -> str:
    return f"{spool}-{number:016x}"


def status(current: Entries | None = None, expected: Entries | None = None) -> Status:
    return Status("dev-1", current or {}, expected or {})


def after(before: Status, key: str, value: str, t: int = 10, number: int = 1) -> Status:
    return merge(before, message(number), key, Entry(t, value)).status


def test_a_job_reply_becomes_current_and_is_no_longer_expected() -> None:
    found = after(status(expected={"@set": WANTED, "@other": WANTED}), "@set", '{"ok":true}')
    assert found.current == {"@set": Entry(10, '{"ok":true}')}
    assert found.expected == {"@other": WANTED}


@pytest.mark.parametrize("reply", ["null", '"unsupported"', '{"error":"x"}', "0"])
def test_any_result_of_a_job_completes_it_null_too(reply: str) -> None:
    found = after(status(expected={"@set": WANTED}), "@set", reply)
    assert found.current["@set"] == Entry(10, reply)
    assert found.expected == {}


def test_a_reply_to_a_job_that_nobody_asked_for_is_kept() -> None:
    assert after(status(), "@set", "1").current == {"@set": Entry(10, "1")}


def test_a_variable_replaces_what_was_reported_before() -> None:
    found = after(status({"mode": Entry(1, '"eco"'), "x": Entry(2, "1")}), "mode", '"fast"')
    assert found.current == {"mode": Entry(10, '"fast"'), "x": Entry(2, "1")}


def test_a_variable_with_the_wanted_value_is_no_longer_expected() -> None:
    found = after(status(expected={"limits": Entry(5, '{"a":1,"b":[2.0]}')}), "limits", '{ "b": [2], "a": 1.0 }')
    assert found.expected == {}
    assert found.current == {"limits": Entry(10, '{ "b": [2], "a": 1.0 }')}


def test_a_variable_with_another_value_stays_expected() -> None:
    found = after(status(expected={"mode": Entry(5, '"fast"')}), "mode", '"eco"')
    assert found.expected == {"mode": Entry(5, '"fast"')}
    assert found.current == {"mode": Entry(10, '"eco"')}


@pytest.mark.parametrize("key", ["mode", "_fota_status", "__manifest", "event"])
def test_null_deletes_a_state(key: str) -> None:
    assert after(status({key: Entry(1, "1"), "x": Entry(1, "2")}), key, "null").current == {"x": Entry(1, "2")}


def test_null_confirms_that_null_was_wanted_and_nothing_else() -> None:
    assert after(status(expected={"mode": Entry(5, "null")}), "mode", "null").expected == {}
    assert after(status(expected={"mode": Entry(5, "1")}), "mode", "null").expected == {"mode": Entry(5, "1")}


@pytest.mark.parametrize("key", ["_private", "__strong", "event", "a.b", "$set", "é", " "])
def test_other_keys_are_kept_as_they_are(key: str) -> None:
    assert after(status(), key, '{"$set":{"":1.0}}').current == {key: Entry(10, '{"$set":{"":1.0}}')}


@pytest.mark.parametrize("key", ["#status", "#now", "#", "condition"])
def test_requests_and_conditions_are_no_state(key: str) -> None:
    assert not is_state(key)


@pytest.mark.parametrize("key", ["conditions", "@job", "_x", "x#", "event"])
def test_everything_else_is_state(key: str) -> None:
    assert is_state(key)


def test_a_message_that_was_merged_before_changes_nothing() -> None:
    first = after(status(), "mode", "1", number=1)
    second = after(first, "mode", "2", number=2)
    assert merge(second, message(1), "mode", Entry(10, "1")) == Merged(second, True)
    assert merge(second, message(2), "mode", Entry(10, "2")) == Merged(second, True)


def test_a_repeated_reply_does_not_complete_a_job_that_was_asked_for_since() -> None:
    done = after(status(expected={"@set": WANTED}), "@set", "1")
    again = Status(done.device_id, done.current, {"@set": Entry(20, "{}")}, done.applied, 2)
    assert after(again, "@set", "1").expected == {"@set": Entry(20, "{}")}


def test_messages_of_another_spool_are_not_taken_for_repeats() -> None:
    before = after(status(), "mode", "1", number=500)
    found = merge(before, message(1, "ff00ff00ff00ff00"), "mode", Entry(11, "2")).status
    assert found.current == {"mode": Entry(11, "2")}


def test_a_full_status_takes_no_new_key_but_still_changes_deletes_and_confirms() -> None:
    full = status({str(number): Entry(1, "1") for number in range(MAX_KEYS)}, {"@set": WANTED})
    refused = merge(full, message(1), "@set", Entry(10, "1"))
    assert not refused.stored
    assert refused.status.current == full.current
    assert refused.status.expected == {}
    assert merge(full, message(1), "7", Entry(10, "2")).status.current["7"] == Entry(10, "2")
    assert "7" not in after(full, "7", "null").current


def test_a_status_holds_so_many_bytes_and_not_more() -> None:
    half = '"' + "x" * (MAX_BYTES // 2) + '"'
    one = merge(status(), message(1), "a", Entry(1, half))
    two = merge(one.status, message(2), "b", Entry(1, half))
    again = merge(one.status, message(2), "a", Entry(2, half))
    assert (one.stored, two.stored, again.stored) == (True, False, True)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1", "1.0", True),
        ("true", "1", False),
        ("0", "false", False),
        ('"\\u0041"', '"A"', True),
        ("[1,2]", "[2,1]", False),
        ("[1]", "[1,1]", False),
        ('{"a":1,"b":2}', '{"b":2,"a":1}', True),
        ('{"a":null}', "{}", False),
        ("null", "false", False),
        ('{"a":[true]}', '{"a":[1]}', False),
        ("[]", "{}", False),
    ],
)
def test_json_is_compared_by_meaning(one: str, other: str, same: bool) -> None:
    assert same_json(one, other) is same
    assert same_json(other, one) is same


@given(st.dictionaries(st.text(max_size=5), st.integers(0, 9), max_size=5))
def test_a_map_of_any_keys_is_written_as_json(values: dict[str, int]) -> None:
    entries = {key: Entry(value, str(value)) for key, value in values.items()}
    assert json.loads(as_json(entries)) == {key: {"t": value, "v": value} for key, value in values.items()}


def test_a_status_reply_hides_strong_private_values_and_shows_private_ones() -> None:
    before = status({"mode": Entry(1, "1.0"), "_p": Entry(2, "2"), "__s": Entry(3, "3")}, {"@set": WANTED})
    (answer,) = answers_to("#status", before, 99)
    assert answer.key == "#status"
    assert answer.value == (
        '{"current":{"mode":{"t":1,"v":1.0},"_p":{"t":2,"v":2},"__s":{"t":3,"v":null}},'
        '"expected":{"@set":{"t":5,"v":{"args":{"rpm":900}}}}}'
    )


def test_a_status_reply_to_a_new_device_has_null_for_both() -> None:
    assert answers_to("#status", status(), 99) == [("#status", '{"current":null,"expected":null}')]


def test_a_firmware_update_comes_after_the_status_to_devices_that_would_skip_all_else() -> None:
    wanted = {"@set": WANTED, "@fota": Entry(6, '{"fw_version":"1"}')}
    reply, fota = answers_to("#status", status(expected=wanted), 99)
    assert json.loads(reply.value)["expected"].keys() == {"@set"}
    assert fota == ("@fota", '{"fw_version":"1"}')


@pytest.mark.parametrize("key", ["__vm_info", "__info"])
def test_a_firmware_update_is_in_the_status_of_devices_that_can_do_it(key: str) -> None:
    (reply,) = answers_to("#status", status({key: Entry(1, "{}")}, {"@fota": Entry(6, "{}")}), 99)
    assert json.loads(reply.value)["expected"].keys() == {"@fota"}


def test_now_is_told_in_three_forms() -> None:
    (answer,) = answers_to("#now", status(), 1714637105250)
    assert json.loads(answer.value) == {"s": 1714637105, "ms": 1714637105250, "rfc3339": "2024-05-02T08:05:05.250Z"}


def test_there_are_no_conditions_yet() -> None:
    assert answers_to("#conditions", status(), 1) == [("#conditions", "{}")]


@pytest.mark.parametrize("request_", ["#", "#fota_info", "#Status", "#now "])
def test_an_unknown_request_is_not_answered(request_: str) -> None:
    assert answers_to(request_, status(), 1) == []


def test_answers_have_the_same_ids_on_every_repeat() -> None:
    answers = answers_to("#now", status(), 7)
    assert down(answers, message(1), "dev-1", 7) == [(f"{message(1)}-0", "dev-1", "#now", answers[0].value, 7)]
