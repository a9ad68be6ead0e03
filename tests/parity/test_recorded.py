"""The references reproduce the numbers recorded in the repository; no other file is needed."""

import pytest

from tests.reference import record

CASES = {**record.SHIP_CASES, **record.VPT_CASES}


def recompute(name: str) -> record.Record:
    case = CASES[name]
    return record.record_ship(case) if isinstance(case, record.ShipCase) else record.record_vpt(case)


def test_every_case_is_recorded() -> None:
    assert set(record.stored()) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_reference_reproduces_recorded_numbers(name: str) -> None:
    expected = record.stored()[name]
    computed = recompute(name)
    assert set(computed) == set(expected)
    for quantity, values in expected.items():
        assert computed[quantity] == pytest.approx(values, rel=1e-10, abs=1e-10), quantity
