"""Labels of speakers are found in a text's dialogues and checked against data.labels."""

import dataclasses

import pytest

import jaxlm
from jaxlm.data.corpus import load
from jaxlm.data.labels import check_labels, speaker

LABELS = ("human", "network")


@pytest.mark.parametrize(
    ("turn", "label"),
    [
        ("User: hi: there", "User"),
        ("Dr. Smith: hi", "Dr. Smith"),
        ("Ольга: привет", "Ольга"),
        ("Bot:", "Bot"),
        ("at 12:30 we go", None),
        ("http://x.org", None),
        ("User:hi", None),
        (": hi", None),
        ("no label here", None),
        (f"{'so ' * 20}: a sentence", None),
    ],
)
def test_a_label_is_what_stands_before_a_colon_and_a_blank(turn, label):
    assert speaker(turn) == label


def test_a_label_that_is_given_may_look_like_none():
    assert speaker("10:30 me: hi", ("10:30 me", "you")) == "10:30 me"


def refused(dialogues, labels=LABELS):
    with pytest.raises(jaxlm.UserError) as caught:
        check_labels(dialogues, labels, "my.txt")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_other_labels_are_listed_with_their_counts_and_the_setting():
    told = refused([["User: hi", "Bot: hello", "User: bye"]] * 3 + [["Bot: you?", "User: me", "Eve: boo"]])
    assert "no line of 'my.txt' begins with 'human: ' or 'network: '" in told
    assert "it has 'User: ' (7), 'Bot: ' (4), 'Eve: ' (1); give --data.labels User Bot" in told


def test_who_begins_dialogues_is_the_one_who_asks():
    told = refused([["Ms Kim: hi", "Bot: hello", "Bot: well?"]] * 3)
    assert told.endswith("give --data.labels 'Ms Kim' Bot")


def test_one_label_of_two_is_not_enough():
    told = refused([["human: hi", "bot: hello"]])
    assert "begins with 'network: '" in told and told.endswith("give --data.labels human bot")
    assert refused([["human: hi", "human: hello"]]).endswith("two speakers, or take --data.kind lines or stream")


def test_lines_without_any_label_are_refused_with_the_first_of_them():
    told = refused([["hi there", "hello"], ["bye"]])
    assert "as 'human: ', got none in 'my.txt', which begins 'hi there'" in told
    assert told.endswith("or take --data.kind lines or stream")


def test_further_speakers_and_lines_without_a_label_are_noted():
    talks = [["human: hi", "network: a list:", "1. one", "2. two", "doctor: ouch", "doctor: !", "nurse: what"]]
    speakers, unlabelled = check_labels(talks, LABELS, "my.txt")
    assert "(human network): 'doctor: ' (2), 'nurse: ' (1);" in speakers
    assert unlabelled.startswith("note: 2 of 7 lines begin with no speaker's label, as '1. one'")
    assert check_labels([["human: hi", "network: hello"]], LABELS, "my.txt") == ()


def test_many_speakers_are_listed_up_to_five():
    talk = [["human: a", "network: b", *(f"{name}: hi" for name in "ABCDEFGH")]]
    assert check_labels(talk, LABELS, "my.txt")[0].count("(1)") == 5
    assert "and 3 more" in check_labels(talk, LABELS, "my.txt")[0]


def test_a_file_of_other_labels_is_refused_until_they_are_given(tmp_path):
    path = tmp_path / "talks.txt"
    path.write_text("User: hi\nBot: hello\n\n" * 9)
    data = jaxlm.DataConfig(path=str(path), kind="dialogues")
    with pytest.raises(jaxlm.UserError, match=r"'User: ' \(9\), 'Bot: ' \(9\); give --data.labels User Bot$"):
        load(data)
    assert load(dataclasses.replace(data, labels=("User", "Bot"))).notes == ()
