"""V13 to V25 of the network: published numbers, each with its source, profile and tolerance."""

import pytest

from topology.published import rows

ROWS = rows()


@pytest.mark.parametrize("row", [r for r in ROWS if r.ok is not None], ids=lambda r: r.what)
def test_published_numbers_are_met(row):
    assert row.ok, f"{row.id} {row.what}: {row.emulated} against {row.published} ({row.source})"


def test_all_rows_are_there_and_name_their_profile():
    assert {row.id for row in ROWS} >= {
        *("V13", "V14", "V16", "V17", "V18", "V19", "V20", "V21", "V23", "V25"),
    }
    (links,) = (row for row in ROWS if row.id == "V13")
    assert len(links.numbers) == links.published == 28
    assert {row.profile for row in ROWS if row.id in ("V19", "V23")} == {"ship"}
    assert all(row.source for row in ROWS)


def test_misses_are_printed_with_their_error(capsys):
    missed = [row for row in ROWS if row.ok is None]
    assert {row.id for row in missed} == {"V19", "V20"}
    with capsys.disabled():
        for row in missed:
            print(f"\n{row.id} {row.what}: published {row.published:g}, ours {row.emulated:g}"
                  f" ({row.error:+.0%}, {row.profile}; {row.source})", end="")  # fmt: skip
