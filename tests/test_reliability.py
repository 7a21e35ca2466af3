"""RELIABILITY.md says what the tests are; the list of deliberate faults fits the files."""

from __future__ import annotations

import re

import pytest

from generated import between
from mutations import FAULTS, ROOT, Fault
from reliability import DOCUMENT, faults_table, figures_table


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_can_be_put_in_and_its_test_is_there(fault: Fault) -> None:
    assert (ROOT / fault.file).read_text().count(fault.old) == 1
    assert fault.new != fault.old
    file, _, test = fault.test.partition("::")
    assert f"def {test}(" in (ROOT / "tests" / file).read_text()


def test_the_document_lists_the_faults_and_names_files_that_are_there() -> None:
    text = DOCUMENT.read_text()
    assert between(text, "faults", faults_table()) == text  # else: python tests/reliability.py
    assert len(FAULTS) >= 25
    named = set(re.findall(r"`(tests/[\w/.]+)`", text))
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_nothing_was_lost_in_the_run_that_the_document_shows() -> None:
    assert "| **all** |  |  | **0** | **0** |" in DOCUMENT.read_text()


def test_figures_become_a_table() -> None:
    records = [
        {"name": "kills", "kills": 1000, "backend": 400, "lost": 0, "torn": 0},
        {"name": "loads", "cuts": 3, "found done": 1, "lost": 0, "torn": 0},
        {"name": "loads", "cuts": 4, "found done": 2, "lost": 1, "torn": 0},
        {"name": "a manifest", "ending": "loaded", "seconds": 3},
    ]
    assert figures_table(records) == (
        "| what was tried | how often | what came of it | lost | torn |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| kills | 1,000 kills | 400 backend | 0 | 0 |\n"
        "| loads | 7 cuts | 3 found done | 1 | 0 |\n"
        "| a manifest | ending loaded | 3 seconds |  |  |\n"
        "| **all** |  |  | **1** | **0** |\n"
    )
