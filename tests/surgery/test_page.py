"""The page and the picture of sites: whole in one file, escaped, and true to what was found."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import torch
from torch.nn import functional as F

import thinned
from thinned import InputError

T = torch.nn
X = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
EVIL = "<script>alert(1)</script>&\"'\x00\x1b"


class Evil(T.Module):
    """A module with names that would be markup."""

    def __init__(self):
        super().__init__()
        self.add_module(EVIL, T.Dropout(0.25))
        self.add_module("b" * 90, T.Dropout(0.5))
        type(self).__name__ = "Evil<b>"

    def forward(self, x):
        for child in self.children():
            x = child(x)
        return F.dropout(x, 0.125)


class Mixed(T.Module):
    """Sites of every kind: with and without a rate, measured and not, in evaluation too."""

    def __init__(self):
        super().__init__()
        self.attend, self.body = (
            T.MultiheadAttention(16, 2, 0.3),
            T.Sequential(T.Linear(16, 16), T.Dropout(1.0)),
        )

    def forward(self, x):
        x = self.body(x + torch.rand_like(x))
        return F.dropout(self.attend(x, x, x)[0], 0.5)


MODELS = {
    "evil": lambda: thinned.find(Evil(), X),
    "mixed": lambda: thinned.find(Mixed(), X),
    "read": lambda: thinned.find(Mixed()),
    "deep": lambda: thinned.find(T.Sequential(T.Sequential(T.Sequential(Evil(), Mixed()))), X),
    "empty": lambda: thinned.find(T.Linear(16, 2), X),
}
VOID = {"meta", "br"}


class Reader(HTMLParser):
    """The tags and the text of a page; raises where tags are not balanced."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.words, self.styles = [], [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.styles if self.open and self.open[-1] == "style" else self.words).append(data)


@pytest.mark.parametrize("name", MODELS)
def test_the_page_is_whole_and_harmless(name, tmp_path):
    sites = MODELS[name]()
    sites.save(tmp_path / "sites.html", EVIL)
    page = (tmp_path / "sites.html").read_text(encoding="utf-8")
    assert page == sites.to_html(EVIL)
    read = Reader(page)
    assert {tag for tag, _ in read.tags} <= {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "p",
        "dl",
        "div",
        "dt",
        "dd",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "b",
        "i",
        "u",
        "br",
        "span",
        "footer",
    }
    assert not any(
        a.startswith("on") or a in ("src", "href") for _, attrs in read.tags for a in attrs
    )
    assert not re.search(r"https?:|//|url\(|@import|<script", page.replace("<!doctype", ""))
    assert "\x00" not in page
    assert "\x1b" not in page
    assert any(w.startswith("<script>alert(1)</script>&\"'") for w in read.words)
    assert sum(attrs.get("class") == "site" for _, attrs in read.tags) == len(sites)


@pytest.mark.parametrize("name", MODELS)
def test_the_picture_is_well_formed(name, tmp_path):
    sites = MODELS[name]()
    sites.plot(tmp_path / "sites.svg", EVIL)
    text = (tmp_path / "sites.svg").read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    assert {e.tag for e in root.iter()} <= {f"{space}{t}" for t in ("svg", "rect", "text")}
    assert text.count("http") == 1
    assert "href" not in text
    width, height = float(root.get("width")), float(root.get("height"))
    for e in root.iter(f"{space}rect"):
        x, y, w, h = (float(e.get(k, 0)) for k in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width + 1
        assert 0 <= y <= y + h <= height
    assert all(float(e.get("y")) < height for e in root.iter(f"{space}text"))
    marks = [e for e in root.iter(f"{space}rect") if e.get("width") == "2"]
    assert len(marks) == sum(s.measured is not None for s in sites)


def test_the_page_and_the_picture_show_the_sites():
    sites = thinned.find(Mixed(), X)
    words = Reader(sites.to_html()).words
    assert [w for w in words if w.startswith("eval: ")] == [
        f"eval: {'draws' if s.in_eval else 'quiet'}" for s in _in_tree(sites)
    ]
    page = sites.to_html()
    assert page.count("width:30.00%") == 1
    assert page.count("width:50.00%") == 1
    assert "measured 1.000" in page
    assert "no rate" in page
    assert '<dd class="bad">2</dd>' in page  # torch.rand and F.dropout draw in evaluation
    svg = {e.text for e in ElementTree.fromstring(_svg(sites)).iter() if e.text}
    assert {
        "0.5, dropout, draws in evaluation too",
        "0.3, attention",
        "no rate, noise, draws in evaluation too",
    } <= svg
    read = thinned.find(Mixed()).to_html()
    assert "without inputs nothing is measured" in read
    assert "multiplications after" not in read
    assert "No randomness found" in thinned.find(T.Linear(2, 2), X[:, :2]).to_html()


def _in_tree(sites):
    """The sites in the page's order: those of the model itself first."""
    return sorted(sites, key=lambda s: bool(s.name))


def _svg(sites):
    from thinned.surgery.page import svg

    return svg(sites, "x")


def test_a_rate_above_one_is_cut_to_its_bar(tmp_path):
    class DropOdd(T.Module):
        rate = 7.5

        def forward(self, x):
            return x

    sites = thinned.find(T.Sequential(DropOdd()))
    assert "width:100.00%" in sites.to_html()
    assert 'width="260.0"' in _svg(sites)


def test_the_file_has_to_be_svg(tmp_path):
    with pytest.raises(InputError, match=r"ends in .svg, but got .*x.png"):
        thinned.find(T.Dropout(0.5)).plot(tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
