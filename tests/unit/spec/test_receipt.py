"""A receipt that was saved is read back as it was, and nothing else is taken for one."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.errors import InvalidSpecError
from ringfence.spec import Control, Receipt

CONTROLS = st.builds(Control, st.text(), st.text(), st.text(), st.booleans(), st.text())
ROW = {"name": "pids", "requested": "9", "enforced": "9", "ok": True, "evidence": "pids.max"}


@given(st.lists(CONTROLS).map(tuple).map(Receipt))
def test_a_saved_receipt_is_read_back_as_it_was(receipt: Receipt) -> None:
    assert Receipt.from_dict(json.loads(json.dumps(receipt.to_dict()))) == receipt


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ([], "no list of controls"),
        ({}, "no list of controls"),
        ({"controls": {}}, "no list of controls"),
        ({"controls": [ROW, 3]}, "control 1 has not the fields"),
        ({"controls": [{**ROW, "more": ""}]}, "control 0 has not the fields"),
        ({"controls": [{k: v for k, v in ROW.items() if k != "ok"}]}, "control 0 has not the"),
        ({"controls": [{**ROW, "ok": 1}]}, "ok is no bool"),
        ({"controls": [{**ROW, "evidence": None}]}, "evidence is no str"),
    ],
)
def test_what_is_no_receipt_is_refused_with_what_is_wrong(data: Any, why: str) -> None:
    with pytest.raises(InvalidSpecError, match=why):
        Receipt.from_dict(data)
