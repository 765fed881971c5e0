"""`make pdf`: what its log says is understood, and what is missing is named."""

from __future__ import annotations

import shutil

import pytest

from tvm_deepdive_helpers.maintain import pdf

LOG = """
Missing character: There is no ≥ (U+2265) in font Linux Libertine O/OT:script=latn;!
Missing character: There is no ≥ (U+2265) in font Linux Libertine O/OT:script=latn;!
Overfull \\hbox (4.2pt too wide) in paragraph at lines 10--12
Overfull \\hbox (12.5pt too wide) in paragraph at lines 20--22
LaTeX Warning: Hyper reference `nowhere' on page 3 undefined on input line 40.
"""


def test_read_log() -> None:
    found = pdf.read_log(LOG)
    assert found.missing == (("≥", "Linux Libertine O"),)
    assert [width for width, _ in found.overfull] == [12.5]
    assert found.undefined == ("nowhere",)
    assert pdf.read_log("Output written on book.pdf (3 pages).") == pdf.Log((), (), ())


def test_faults_are_told(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "ROOT", tmp_path)
    with pytest.raises(SystemExit) as stop:
        pdf._check(pdf.read_log(LOG), tmp_path / "x.log")
    message = str(stop.value)
    assert "no character '≥' in Linux Libertine O" in message
    assert "no label nowhere" in message and "12 pt too wide" in message and "Log: x.log" in message
    pdf._check(pdf.Log((), (), ()), tmp_path / "x.log")


def test_missing_programs_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        pdf.build("en")
    assert "lacks latexmk, xelatex" in str(stop.value)
    assert "apt-get install --no-install-recommends latexmk texlive-xetex" in str(stop.value)
