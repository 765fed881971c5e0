"""What holds for every page of the edition, seen by a browser."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import tour

LIMIT = 300_000
#: Pages that may be heavier, with the reason and their own limit.
HEAVY = {
    "search.html": ("it alone loads the index of all words", 500_000),
    "gallery/index.html": ("it shows a picture of each script; a browser loads those in view", 1_000_000),
}


@pytest.fixture(scope="module")
def visits(edition_folder: Path, chromium: str, axe: str) -> dict[str, tour.Visit]:
    names = sorted(path.relative_to(edition_folder).as_posix() for path in edition_folder.rglob("*.html"))
    # A page that only leads on to another is no page to look at; 404.html has addresses of the server's root.
    # The theme leaves two of its templates among its files.
    names = [name for name in names if not name.startswith("_") and not leads_on(edition_folder / name)]
    return asyncio.run(tour.Tour(edition_folder, axe).run(names, chromium))


def leads_on(path: Path) -> bool:
    return 'http-equiv="refresh"' in path.read_text(encoding="utf-8")[:1000]


def listed(found: dict[str, list[str]]) -> str:
    return "\n".join(f"{name}: {text}" for name, texts in sorted(found.items()) for text in texts)


def test_nothing_is_asked_of_another_host(visits: dict[str, tour.Visit]) -> None:
    found = {name: visit.foreign for name, visit in visits.items() if visit.foreign}
    assert not found, listed(found)


def test_the_console_stays_empty(visits: dict[str, tour.Visit]) -> None:
    found = {name: visit.complaints for name, visit in visits.items() if visit.complaints}
    assert not found, listed(found)


def test_a_phone_need_not_scroll_sideways(visits: dict[str, tour.Visit]) -> None:
    found = {name: [f"{visit.overhang} px too wide at 390 px"] for name, visit in visits.items() if visit.overhang > 0}
    assert not found, listed(found)


def test_no_entry_of_a_table_runs_into_the_next(visits: dict[str, tour.Visit]) -> None:
    found = {name: visit.crowded[:5] for name, visit in visits.items() if visit.crowded}
    assert not found, listed(found)


def test_a_page_weighs_little(visits: dict[str, tour.Visit]) -> None:
    """Bytes for a reader whose browser has nothing yet: text compressed by gzip, all pictures of the light mode."""
    found = {}
    for name, visit in visits.items():
        _reason, limit = HEAVY.get(name, ("", LIMIT))
        if visit.weight > limit:
            heaviest = sorted(((size, file) for file, size in visit.files.items()), reverse=True)[:5]
            found[name] = [f"{visit.weight / 1000:.0f} kB, limit {limit / 1000:.0f} kB; heaviest: {heaviest}"]
    assert not found, listed(found)
    weights = sorted(visit.weight for visit in visits.values())
    middle, most = weights[len(weights) // 2] / 1000, weights[-1] / 1000
    print(f"\npages: {len(weights)}, middle weight {middle:.0f} kB, {most:.0f} kB at most")


def test_axe_finds_nothing_serious(visits: dict[str, tour.Visit]) -> None:
    found = {name: visit.violations for name, visit in visits.items() if visit.violations}
    assert not found, listed(found)
