"""Every page's policy, library and licences; templates of lines, facts and tables."""

import base64
import hashlib
import re

import pytest

from darkvocab.reports.document import LIBRARY, facts_of, lines_of, read, render, rows_of, table_of

D3 = "912111098ea99503a6f4967361d2bbdc9dbf58cf9c678c8e27e5b02d1a07f0c1"  # of dist/d3.min.js in the npm package d3 7.9.2


def a_page(scripts=("page.js", "curves.js")):
    page = {"title": "t", "lead": "l", "facts": [], "rows": [], "remarks": [], "lists": [], "files": []}
    content = {"page": page, "terms": {}, "pictures": [], "parameters": [], "command": None}
    return render("run.html.j2", scripts, title="t", **content).decode()


def digest(text):
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_the_library_is_that_of_the_registry_unchanged():
    assert hashlib.sha256(read(LIBRARY).encode()).hexdigest() == D3


def test_the_policy_names_every_script_and_the_style_by_hash_and_nothing_else():
    html = a_page()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#39;", "'")
    scripts = re.findall(r"<script(?: type=\"module\")?>(.*?)</script>", html, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert len(scripts) == 2
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))
    assert set(allowed["script-src"].split()) == {f"'sha256-{digest(script)}'" for script in scripts}
    assert allowed["style-src"] == f"'sha256-{digest(style)}'"
    assert allowed["default-src"] == allowed["base-uri"] == allowed["form-action"] == "'none'"
    assert "unsafe" not in policy


def test_a_page_without_a_script_allows_none():
    html = a_page(())
    assert "script-src &#39;none&#39;" in html
    assert "<script" not in html


def test_a_page_that_holds_the_library_holds_its_licences():
    assert "Permission to use, copy, modify, and/or distribute this software" in a_page()
    assert "Mike Bostock" in a_page()


def test_no_file_of_a_page_ends_its_own_element():
    for name in ("page.js", "plane.js", "list.js", "packed.js", "atlas.js", "curves.js", LIBRARY):
        text = read(name).lower()
        assert "</script" not in text
        assert "<!--" not in text
    assert "</style" not in read("page.css").lower()


def test_facts_are_cut_at_their_first_colon():
    report = {"a": "x", "b": "y: z", "texts": None, "notes": ["n: m"]}
    texts = ("texts", "not compared: no tokenizer beside A, or beside B")
    assert facts_of("diff", report=report, shown=1) == [("A", "x"), ("B", "y: z"), texts, ("", "n: m")]


def test_a_value_ends_neither_a_line_nor_a_cell():
    row = {"figure": " a ¦ b\nc ", "published": 1, "here": None, "agrees": "yes", "note": "n"}
    assert rows_of("comparison", rows=[row], notes=["n"])[1:] == [[" a ¦ b\\nc ", "1", "None", "yes [1]"]]


def test_headings_say_how_their_columns_are_aligned():
    table = table_of(rows_of("comparison", rows=[], notes=[]))
    assert [column.header for column in table.columns] == ["figure", "published", "here", "agrees?"]
    assert [column.justify for column in table.columns] == ["left", "right", "right", "left"]


def test_a_value_that_is_not_there_is_an_error():
    with pytest.raises(LookupError, match="centroid_displacement"):
        lines_of("trained", outcome={"loss": None, "n_unseen": 1})
