"""The validation table: its rules, its commands, and the rows that are quick."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.cli import main
from cluster.errors import BadValue
from cluster.validate import table
from cluster.validate.document import line, markdown, put
from cluster.validate.factors import tasks
from cluster.validate.row import Family, at_least, missed, phases, within
from cluster.validate.tasks import Task, critical_path, schedule

ROOT = Path(__file__).resolve().parents[2]
ROW = within("V98", "a thing", 100.0, 90.0, 5, "a paper", "one chip")


def test_a_row_holds_fails_or_is_reported():
    assert (ROW.status, ROW.error) == ("fails", pytest.approx(-0.1))
    assert replace(ROW, emulated=97.0, ok=True).status == "holds"
    assert missed(ROW, "slow").status == "reported" and missed(ROW, "slow").reason == "slow"
    good = within("V98", "a thing", 100.0, 99.0, 5, "a paper", "one chip")
    assert missed(good, "slow") is good
    assert at_least("V98", "a bound", 0.8, 0.9, "a paper", "one chip").status == "holds"
    assert at_least("V98", "a bound", 0.8, 0.7, "a paper", "one chip").status == "fails"
    assert ROW.command == "lpu validate --only V98"


def test_every_id_of_the_table_is_computed_or_listed():
    ids = table.known_ids()
    absent = {11, 24, 27, 38, 40, 42}  # the table has no such rows
    assert ids == tuple(f"V{n:02d}" for n in range(1, 46) if n not in absent)
    with pytest.raises(BadValue, match="V77"):
        list(table.rows(["V77"]))


def test_the_rack_and_what_is_quick(capsys):
    assert main(["validate", "--only", "V29,V37,V39", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["counts"] == {"holds": 7, "fails": 0, "reported": 0}
    for row in report["rows"]:
        assert row["source"] and row["published"] and row["command"].startswith("lpu validate")
        assert row["ok"] in (True, None) and "error" in row


def test_a_row_that_claims_and_fails_makes_the_command_fail(monkeypatch, capsys):
    monkeypatch.setattr(table, "FAMILIES", (Family(("V98",), lambda: [ROW]),))
    assert main(["validate", "--only", "v98"]) == 1
    assert "FAILS" in capsys.readouterr().out
    silent = [missed(ROW, "too slow by design")]
    monkeypatch.setattr(table, "FAMILIES", (Family(("V98",), lambda: silent),))
    assert main(["validate", "--only", "V98"]) == 0
    assert "V98: too slow by design" in capsys.readouterr().out


def test_tasks_wait_for_units_for_each_other_and_by_priority():
    one = Task("a", 5, ("east",), (), (1,))
    urgent = Task("b", 3, ("east",), (), (0,))
    beside = Task("c", 4, ("west",), (), (0,))
    last = Task("d", 2, ("east", "west"), (one, beside), (0,))
    assert schedule([one, urgent, beside, last]) == 10
    assert [t.start for t in (one, urgent, beside, last)] == [3, 0, 0, 8]
    assert critical_path([one, urgent, beside, last]) == {"a": 5, "b": 3, "d": 2}


def test_a_factorisation_does_each_block_once_wherever_it_is():
    costs = {"eliminate": 100, "solve": 10, "update": 10, "send": 20}
    for chips in (1, 2, 8):
        graph = tasks(4, chips, costs)
        counts = Counter(task.kind for task in graph)
        assert (counts["eliminate"], counts["solve"], counts["update"]) == (4, 6, 10)
        assert schedule(graph) >= 4 * 100 + 3 * 20
        for task in graph:
            assert all(before.end <= task.start for before in task.after)
            for other in graph:
                if other is not task and set(other.units) & set(task.units):
                    assert other.end <= task.start or task.end <= other.start


def test_the_document_has_the_rows_that_are_computed():
    lines = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8").splitlines()
    documented = [part for part in lines if part.startswith("| V")]
    assert [part[2:5] for part in documented] == sorted(part[2:5] for part in documented)
    assert {part[2:5] for part in documented} == set(table.known_ids())
    quick = ["V04", "V16", "V23", "V29", "V37", "V39"]  # the rest takes minutes
    computed = [line(row) for row in sorted(table.rows(quick), key=lambda row: row.id)]
    assert computed == [part for part in documented if part[2:5] in quick]


def test_a_section_of_a_document_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- rows: begin -->\nstale\n<!-- rows: end -->\nafter\n")
    put(page, "rows", markdown([ROW, missed(ROW, "too slow")]))
    text = page.read_text()
    assert text.startswith("before") and text.endswith("after\n") and "stale" not in text
    assert "| V98 | a thing | 100 | 90 | -10 % | 5 % | fails |" in text
    assert "2 rows: 0 holds, 1 fails, 1 reported" in text and "- **V98**: too slow." in text
    with pytest.raises(BadValue, match="no section other"):
        put(page, "other", "")


def test_phases_account_for_all_cycles_from_the_first_start_on():
    events = [("mul: b", 10, 40), ("load", 0, 12), ("mul: a", 20, 90)]
    assert phases(events, 100) == "mul 90, load 10"
    assert phases(events, 100, most=1) == "mul 90"
