"""The HTML page in a real browser: it asks nobody for anything, sorts, links to arXiv, and can be used by everyone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import Result
from conftest import HANGS_S
from test_compare import pair
from test_drift import dumps
from test_slices import labels_of

from arxivclf import report
from arxivclf.reporting.compare import compare
from arxivclf.reporting.drift import drift
from arxivclf.reporting.formats import as_html
from arxivclf.reporting.page import page_of
from arxivclf.reporting.tables import Named

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HOSTILE = '<script>alert(1)</script> & "quotes" <img src=x onerror=alert(2)>'


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two labels, with slices and papers, one of them with a hostile title.

    One category has more than a thousand papers, and more have false negatives than false positives.
    """
    folder = tmp_path_factory.mktemp("page")
    few = pl.when(~pl.col("ai_truth") & pl.col("ai")).then(pl.lit("hep-th"))
    often = pl.when(pl.int_range(pl.len()) < 1_100).then(pl.lit("cs.LG")).otherwise("categories")
    frame = labels_of().with_columns(categories=few.otherwise(often))
    frame = frame.with_columns(
        venue=pl.Series(["2021-05-01", "3D vision", "2021-04-30", "12 days", "", "9 days", "Zoo"] * 286).head(2_000)
    )
    more = frame.select(pl.col("ai", "ai_score", "ai_truth").name.replace("ai", "cv"))
    frame = frame.hstack(more).with_columns(title=pl.lit(HOSTILE))
    frame.write_parquet(folder / "x.labels.parquet")
    path = folder / "x.html"
    path.write_text(
        as_html(report(folder / "x.labels.parquet", by=["year", "primary", "venue"], errors=5, for_precision=[0.9]))
    )
    return path


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of labels without a truth, of two files on the same papers, and of two dumps."""
    folder = tmp_path_factory.mktemp("others")
    labels_of().with_columns(ai_truth=pl.lit(None, pl.Boolean)).write_parquet(folder / "blind.parquet")
    for name, frame in zip(("old", "new", "earlier", "later"), (*pair(), *dumps(more=0.1)), strict=True):
        frame.write_parquet(folder / f"{name}.parquet")
    found: dict[str, Any] = {
        "blind": report(folder / "blind.parquet", by=["year"]),
        "compare": compare(folder / "old.parquet", folder / "new.parquet", by=["year"], changed=3),
        "drift": drift(folder / "earlier.parquet", folder / "later.parquet"),
    }
    for name, one in found.items():
        (folder / f"{name}.html").write_text(as_html(one))
    return {name: folder / f"{name}.html" for name in found}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: install Debian's package chromium")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    """The page, opened; at the end it must have asked for nothing but itself, and complained of nothing."""
    asked: list[str] = []
    said: list[str] = []
    context = browser.new_context()
    context.set_default_timeout(1_000 * HANGS_S)
    tab = context.new_page()
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("dialog", lambda dialog: said.append(dialog.message))
    tab.goto(file.as_uri())
    yield tab
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
    assert said == []
    context.close()


def test_the_figures_are_there(page: Any, file: Path) -> None:
    text = page.inner_text("main")
    known = report(file.with_name("x.labels.parquet"), by=["year"]).labels[0]
    for one in known.figures:
        assert f"{one.interval.value:.4f}" in text
    assert page.locator("section").count() == 3
    assert page.locator("svg[role=img]").count() == 8
    assert HOSTILE in text


def test_tables_sort(page: Any) -> None:
    table = page.locator("table", has=page.get_by_text("By year")).first
    heading = table.locator("th", has=page.get_by_role("button", name="papers"))

    def column(place: int) -> list[float]:
        return [
            float(text.replace(",", "")) for text in table.locator(f"tbody tr :nth-child({place})").all_inner_texts()
        ]

    heading.get_by_role("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert column(2) == sorted(column(2))
    heading.get_by_role("button").press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert column(2) == sorted(column(2), reverse=True)
    table.get_by_role("button", name="year").click()
    assert column(1) == sorted(column(1))
    assert heading.get_attribute("aria-sort") is None


def test_a_number_is_what_is_one_as_a_whole(page: Any) -> None:
    """Neither a date is nor a word that begins with digits; these go by letters, after all numbers."""
    table = page.locator("table", has=page.get_by_text("By venue")).first

    def column(place: int) -> list[str]:
        return [text.strip() for text in table.locator(f"tbody tr :nth-child({place})").all_inner_texts()]

    table.get_by_role("button", name="venue").click()
    assert column(1) == ["9 days", "12 days", "(none)", "2021-04-30", "2021-05-01", "3D vision", "Zoo"]
    table.get_by_role("button", name="venue").click()
    assert column(1) == ["Zoo", "3D vision", "2021-05-01", "2021-04-30", "(none)", "12 days", "9 days"]
    table = page.locator("table", has=page.get_by_text("By primary")).first
    table.get_by_role("button", name="papers").click()
    assert column(2)[-1].startswith("1,")
    assert column(2) == sorted(column(2), key=lambda text: int(text.replace(",", "")))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234", "1234"),
        ("1,234,567.5", "1234567.5"),
        ("1,079 (10.2%)", "1079"),
        ("12,345 - 20,000", "12345"),
        ("0.8358 - 0.8677", "0.8358"),
        ("10.2%", "10.2"),
        ("+3.2", "+3.2"),
        ("-0.5", "-0.5"),
        ("4.63e-06", "4.63e-06"),
        ("2021", "2021"),
        ("1,23", None),
        ("1,2345", None),
        ("2021-05-01", None),
        ("3D vision", None),
        ("-", None),
        ("", None),
        ("arxiv.org/abs/2101.00001", None),
    ],
)
def test_the_value_of_a_cell(text: str, value: str | None) -> None:
    table = Named("x")
    table.add_column("first")
    table.add_column("second")
    table.add_row("row", text)
    found = re.search(r"<td([^>]*)>[^<]*</td></tr>", page_of("title", [table]))
    assert found is not None
    told = re.search(r'data-value="([^"]*)"', found[1])
    assert (told[1] if told else None) == value


def test_names_that_look_alike_are_two_places(tmp_path: Path) -> None:
    names = ["a b", "a-b", "words", "all labels", 'x" y']
    labels = [labels_of().head(300).select(pl.col("ai", "ai_score", "ai_truth").name.replace("ai", x)) for x in names]
    pl.concat(labels, how="horizontal").write_parquet(tmp_path / "x.parquet")
    text = as_html(report(tmp_path / "x.parquet"))
    ids = re.findall(r' id="([^"]*)"', text)
    # The fifth label and all at once.
    assert len(ids) == len(set(ids)) == 6
    assert re.findall(r'<a href="#([^"]*)"', text) == re.findall(r'aria-labelledby="([^"]*)"', text) == ids


def test_no_two_regions_of_a_page_have_one_name(file: Path, others: dict[str, Path]) -> None:
    for path in (file, *others.values()):
        found = re.findall(r'role="region" aria-label="([^"]*)"', path.read_text())
        assert len(found) == len(set(found)) > 0


def test_a_row_without_a_name_has_no_heading(file: Path) -> None:
    text = file.read_text()
    assert re.search(r'<tr><td class="text"></td>', text)
    assert not re.search(r"<th[^>]*></th>", text)


def test_links_point_to_arxiv(page: Any) -> None:
    links = [link for link in page.eval_on_selector_all("a", "all => all.map(one => one.href)") if "#" not in link]
    assert len(links) == 20
    assert all(re.fullmatch(r"https://arxiv\.org/abs/\d{4}\.\d{5}", link) for link in links)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_everyone_can_use_it(page: Any, scheme: str, width: int) -> None:
    """axe-core finds no fault, and no screen is too narrow for the page."""
    from axe_playwright_python.sync_playwright import Axe

    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    found = Axe().run(page).response["violations"]
    assert [f"{one['id']}: {one['help']}" for one in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("which", ["blind", "compare", "drift"])
def test_other_pages_are_as_good(page: Any, others: dict[str, Path], which: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.goto(others[which].as_uri())
    page.set_viewport_size({"width": 360, "height": 800})
    found = Axe().run(page).response["violations"]
    assert [f"{one['id']}: {one['help']}" for one in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.get_by_role("heading", name="ai", exact=True).count() == 1
    assert page.get_by_role("table").count() >= 1


def test_it_prints(page: Any) -> None:
    """Over the whole sheet, no row or figure across two."""
    style = "getComputedStyle(document.querySelector('{}')).{}"
    on_screen = page.evaluate(style.format("body", "maxWidth"))
    page.emulate_media(media="print")
    assert page.evaluate(style.format("body", "maxWidth")) == "none" != on_screen
    assert page.evaluate(style.format("tr", "breakInside")) == "avoid"
    assert page.pdf().startswith(b"%PDF")


def test_the_command_writes_it(cli: Callable[..., Result], file: Path, tmp_path: Path) -> None:
    done = cli("report", file.with_name("x.labels.parquet"), "--format", "html", "-o", tmp_path / "y.html")
    assert done.exit_code == 0, done.stderr
    text = (tmp_path / "y.html").read_text()
    assert text.startswith("<!doctype html>")
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert len(text) < 400_000


def test_hostile_titles_stay_text(file: Path) -> None:
    text = file.read_text()
    assert "<img" not in text
    assert text.count("<script>") == 1
