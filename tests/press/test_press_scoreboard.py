"""The scoreboard says what the stored claims tables say, and its files are kept current."""

import base64
import json
import xml.etree.ElementTree as ET

from bs4 import BeautifulSoup
from press_book import reproduce

from reproductions.chapter.claims import VERDICTS as OF_CHAPTERS
from reproductions.press.picture import draw
from reproductions.press.scoreboard import (
    VERDICTS,
    read_boards,
    stale_pages,
    totals,
    write_pages,
)

SVG = "{http://www.w3.org/2000/svg}"


def test_verdicts_are_those_of_the_chapters():
    assert VERDICTS == OF_CHAPTERS


def test_boards_hold_what_the_notebooks_hold(built):
    beta, alpha = read_boards(built)
    assert (alpha.title, beta.title) == ("Alpha and friends", "Beta")
    assert alpha.counts == {"reproduced": 2, "not run here": 1}
    assert totals([alpha, beta]) == {"reproduced": 2, "not run here": 2}


def test_every_claim_links_to_its_row_in_the_chapter(book):
    write_pages(book)
    page = (book.root / "book" / "scoreboard.md").read_text()
    links = [a["href"] for a in BeautifulSoup(page, "html.parser").select("tbody th a")]
    assert links == [
        "../chapters/beta.html#claim-C1",
        *(f"../chapters/alpha.html#claim-C{k}" for k in (1, 2, 3)),
    ]
    stored = book.chapter("alpha").notebook.read_text()
    assert all(f'id=\\"claim-C{k}\\"' in stored for k in (1, 2, 3))
    # a blank line would end a block of HTML in Markdown
    assert all(line.count("<table") == line.count("</table>") for line in page.splitlines())


def test_generated_files_and_how_they_go_out_of_date(book):
    assert len(stale_pages(book)) == 7
    names = {str(path.relative_to(book.root)) for path in write_pages(book)}
    assert names == {
        "book/scoreboard.md",
        "book/_generated/glance.md",
        "book/_generated/strip-alpha.html",
        "book/_generated/strip-beta.html",
        "book/_static/scoreboard.svg",
        "book/_static/faces/alpha-light.png",
        "book/_static/faces/alpha-dark.png",
    }
    assert stale_pages(book) == []
    assert write_pages(book) == []
    assert reproduce("scoreboard", "--check", "--root", book.root).exit_code == 0
    text = book.chapter("beta").notebook.read_text().replace("not run here", "qualified")
    book.chapter("beta").notebook.write_text(text)
    left_over = book.root / "book" / "_generated" / "strip-gone.html"
    left_over.write_text("")
    of_alpha = {name for name in names if "alpha" in name}
    assert set(stale_pages(book)) == {*names - of_alpha, "book/_generated/strip-gone.html"}
    result = reproduce("scoreboard", "--check", "--root", book.root)
    assert result.exit_code == 1
    assert "run `reproduce scoreboard` and commit" in " ".join(result.stderr.split())
    write_pages(book)
    assert not left_over.exists()


def test_the_strip_says_which_data_sets_are_used(book):
    path = book.chapters_folder / "beta.py"
    write_pages(book)
    strip = book.root / "book" / "_generated" / "strip-beta.html"
    assert "no data set to download" in strip.read_text()
    path.write_text(path.read_text() + "\n# %%\nload('mnist')\nload('digits')\nuci_task('iris')\n")
    write_pages(book)
    assert "MNIST" in strip.read_text()
    assert "digits" not in strip.read_text()
    assert "UCI" in strip.read_text()


def test_the_command_prints_tiles_and_totals(book):
    result = reproduce("scoreboard", "--root", book.root)
    assert result.exit_code == 0
    assert "✓C1 ✓C2 –C3" in result.stdout
    assert "✓ 2 reproduced, – 2 not run here" in result.stdout
    rows = json.loads(reproduce("scoreboard", "--json", "--root", book.root).stdout)
    assert rows[1]["claims"] == {"C1": "reproduced", "C2": "reproduced", "C3": "not run here"}


def tiles(svg):
    return [
        title.text
        for group in ET.fromstring(svg).iter(f"{SVG}g")
        for title in group.findall(f"{SVG}title")
    ]


def test_the_picture_has_a_tile_for_each_claim_and_fits_its_frame():
    verdicts = list(VERDICTS)
    rows = [(f"C{k}", verdicts[k % 5]) for k in range(50)]
    svg = draw([("A <title> & more", rows), ("Not built", [])])
    assert tiles(svg) == [f"{claim}: {verdict}" for claim, verdict in rows]
    root = ET.fromstring(svg)
    width, height = float(root.get("width")), float(root.get("height"))
    for rect in root.iter(f"{SVG}rect"):
        x, y, w, h = (float(rect.get(k)) for k in ("x", "y", "width", "height"))
        assert x >= 0
        assert x + w <= width
        assert y + h <= height
    assert draw([("A <title> & more", rows), ("Not built", [])]) == svg
    assert "10 reproduced" in svg


def test_an_empty_book_has_pages_too(plain):
    write_pages(plain)
    assert (
        "No chapter has been built yet." in (plain.root / "book/_generated/glance.md").read_text()
    )
    assert "not been built" in (plain.root / "book/scoreboard.md").read_text()
    ET.fromstring((plain.root / "book/_static/scoreboard.svg").read_text())


def test_the_start_page_shows_the_face_of_each_chapter_in_both_themes(book):
    write_pages(book)
    glance = (book.root / "book/_generated/glance.md").read_text()
    images = BeautifulSoup(glance, "html.parser").select("a[href='../chapters/alpha.html'] img")
    assert [image["class"] for image in images] == [["only-light"], ["only-dark"]]
    assert all(image["alt"] == "Alpha and friends: A rising line." for image in images)
    pictures = [book.root / "book" / image["src"].replace("../", "") for image in images]
    stored = book.chapter("alpha").notebook.read_text()
    for picture in pictures:
        assert base64.b64encode(picture.read_bytes()).decode() in stored
    assert pictures[0].read_bytes() != pictures[1].read_bytes()
