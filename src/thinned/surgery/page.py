"""The sites of a model as an HTML page and as an SVG picture: a tree of modules with their
rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .sites import Site

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --soft: #667085; --line: #e4e7ec;
  --back: #ffffff; --panel: #f7f8fa;
  --rate: #3f6fd8; --measured: #1d2330; --behind: #b9c3d6; --good: #17803d; --goodback: #e5f5ea;
  --bad: #b42318;
  --badback: #fdeceb; --idle: #667085; --idleback: #eef0f3; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaf0; --soft: #98a2b3; --line: #2b3240;
  --back: #12161d;
  --panel: #1a1f29; --rate: #7ea2f5; --measured: #ffffff; --behind: #465268; --good: #6fd694;
  --goodback: #173324;
  --bad: #ff9c91; --badback: #40201e; --idle: #98a2b3; --idleback: #252b37; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 2.2rem clamp(1rem, 4vw, 3.5rem) 3rem; background: var(--back);
  color: var(--ink);
  font: 15px/1.45 system-ui, "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; font-weight: 650; letter-spacing: -.01em; margin: 0 0 .3rem; }
p.lead { color: var(--soft); margin: 0 0 1.6rem; max-width: 62rem; }
dl { display: flex; flex-wrap: wrap; gap: .8rem; margin: 0 0 1.8rem; }
dl div { background: var(--panel); border-radius: 10px; padding: .7rem 1.1rem; min-width: 8.5rem; }
dt { color: var(--soft); font-size: .8rem; }
dd { margin: 0; font-size: 1.45rem; font-weight: 600; font-variant-numeric: tabular-nums; }
dd.bad { color: var(--bad); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; min-width: 54rem;
  font-variant-numeric: tabular-nums; }
th { text-align: left; font-size: .78rem; font-weight: 550; color: var(--soft);
  padding: .35rem .9rem .45rem 0;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
td { padding: .42rem .9rem .42rem 0; border-bottom: 1px solid var(--line);
  vertical-align: baseline; line-height: 1.35;
  white-space: nowrap; }
tr.group td { border-bottom: 0; padding: .75rem 0 .15rem; color: var(--soft); font-size: .88rem; }
tr.group b { color: var(--ink); font-weight: 600; }
tbody tr.site:hover { background: var(--panel); }
.name { font-weight: 550; }
.kind, .where { color: var(--soft); font-size: .84rem; }
.where { font-family: ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono",
  monospace; font-size: .78rem; }
.bar { position: relative; width: 9rem; height: .85rem; border-radius: 4px;
  background: var(--idleback); display: inline-block;
  vertical-align: -2px; margin-right: .6rem; }
.bar i { position: absolute; inset: 0 auto 0 0; border-radius: 4px; background: var(--rate); }
.bar u { position: absolute; top: -3px; bottom: -3px; width: 2px; margin-left: -1px;
  background: var(--measured);
  border-radius: 1px; }
.behind { width: 4.5rem; }
.behind i { background: var(--behind); }
.pill { display: inline-block; padding: .08rem .55rem; border-radius: 99px; font-size: .78rem;
  font-weight: 550; }
.yes { color: var(--good); background: var(--goodback); } .alarm { color: var(--bad);
  background: var(--badback); }
.no { color: var(--idle); background: var(--idleback); }
footer { margin-top: 1.6rem; color: var(--soft); font-size: .84rem; max-width: 62rem; }
.key { display: inline-block; width: 2.2rem; margin: 0 .35rem 0 .8rem;
  } .key:first-child { margin-left: 0; }
"""


@dataclass(frozen=True)
class _Row:
    """One row of the tree: a site, or a module that contains sites."""

    level: int
    label: str
    site: Site | None


@dataclass
class _Node:
    """A module with its sites and its children, in the order of the pass."""

    sites: list[Site] = field(default_factory=list)
    children: dict[str, _Node] = field(default_factory=dict)

    def rows(self, level: int, label: str) -> Iterator[_Row]:
        """Yield the rows of the module; a chain of single children without sites is one row."""
        while not self.sites and len(self.children) == 1:
            ((name, child),) = self.children.items()
            self, label = child, f"{label}.{name}".lstrip(".")
        for site in self.sites:
            yield _Row(level, label or "(the model)", site)
        if not self.sites and label:
            yield _Row(level, label, None)
        for name, child in self.children.items():
            yield from child.rows(level + bool(label), name)


def _rows(sites: Sequence[Site]) -> list[_Row]:
    root = _Node()
    for site in sites:
        node = root
        for part in site.name.split(".") if site.name else ():
            node = node.children.setdefault(part, _Node())
        node.sites.append(site)
    if root.children and root.sites:
        return [
            *(_Row(0, "(the model)", s) for s in root.sites),
            *_Node([], root.children).rows(0, ""),
        ]
    return list(root.rows(0, ""))


def _escaped(text: str) -> str:
    """Escape text for HTML and XML, which do not allow control characters."""
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))


def _percent(share: float) -> str:
    """Return a share as a CSS length, cut to [0, 100]: an attribute named ``rate`` can exceed 1."""
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"


def _rate_cell(site: Site) -> str:
    text = (
        "" if site.measured is None else f'<span class="kind">measured {site.measured:.3f}</span>'
    )
    if site.rate is None and site.measured is None:
        return '<span class="kind">no rate</span>'
    rate = f'<i style="width:{_percent(site.rate)}"></i>' if site.rate is not None else ""
    measured = (
        f'<u style="left:{_percent(site.measured)}"></u>' if site.measured is not None else ""
    )
    number = '<span class="kind">no rate</span>' if site.rate is None else f"{site.rate:.3g}"
    return _two_lines(f'<span class="bar">{rate}{measured}</span>{number}', text)


def _cost_cell(site: Site) -> str:
    if site.flops_behind is None:
        return ""
    bar = f'<span class="bar behind"><i style="width:{_percent(site.flops_behind)}"></i></span>'
    return f"{bar}{site.flops_behind:.0%}"


def _two_lines(first: str, second: str) -> str:
    """Join two lines; an empty one is left out."""
    return "<br>".join(line for line in (first, second) if line)


def _mode_cell(site: Site) -> str:
    train = ("yes", "train: draws") if site.in_train else ("no", "train: quiet")
    evaluation = ("alarm", "eval: draws") if site.in_eval else ("no", "eval: quiet")
    return " ".join(
        f'<span class="pill {kind}">{text}</span>' for kind, text in (train, evaluation)
    ) + "".join(
        f'<br><span class="kind">{text}</span>'
        for missing, text in (
            (not site.keyed, "no key reaches it"),
            (not site.sampled, "thinned.sampling does not reach it"),
        )
        if missing
    )


def _table_row(row: _Row) -> str:
    indent = f'style="padding-left:{1.4 * row.level:.1f}rem"'
    if row.site is None:
        return f'<tr class="group"><td colspan="5" {indent}><b>{_escaped(row.label)}</b></td></tr>'
    site = row.site
    calls = f", {site.calls} calls" if site.calls > 1 else ""
    name = f'<span class="name">{_escaped(row.label)}</span>'
    kind = (
        "" if site.module == site.function else f'<span class="kind">{_escaped(site.module)}</span>'
    )
    where = (
        f'<span class="where" title="{_escaped(site.where)}">{_escaped(_short(site.where))}</span>'
        if site.where
        else ""
    )
    shape = (
        f'<span class="kind">{" x ".join(map(str, site.shape))}</span>'
        if site.shape is not None
        else ""
    )
    cells = (
        _two_lines(f"{_escaped(site.function)}{calls}", where),
        _rate_cell(site),
        _mode_cell(site),
        _two_lines(_cost_cell(site), shape),
    )
    first = f"<td {indent}>{_two_lines(name, kind)}</td>"
    return f'<tr class="site">{first}{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _short(where: str) -> str:
    """Return the last two parts of a file's path, which are enough to recognize it."""
    return "/".join(where.replace("\\", "/").split("/")[-2:])


def _tiles(sites: Sequence[Site]) -> str:
    in_eval = sum(s.in_eval for s in sites)
    rates = [s.rate for s in sites if s.rate is not None]
    span = (
        "none"
        if not rates
        else f"{min(rates):.3g}"
        if min(rates) == max(rates)
        else f"{min(rates):.3g} to {max(rates):.3g}"
    )
    tiles = [
        ("sites that draw", str(len(sites)), ""),
        ("rates", span, ""),
        ("draw in training", str(sum(s.in_train for s in sites)), ""),
        ("draw in evaluation", str(in_eval), ' class="bad"' if in_eval else ""),
    ]
    return "".join(f"<div><dt>{name}</dt><dd{css}>{value}</dd></div>" for name, value, css in tiles)


_LEAD_RUN = "Every site where this model draws at random, in the order of the pass."
_LEAD_READ = (
    "The layers and calls of this model that drop, read from its layers and source; "
    "without inputs nothing is measured."
)
_LEGEND = (
    '<footer><span class="bar key"><i style="width:60%"></i></span>rate (probability of dropping)'
    '<span class="bar key"><u style="left:60%"></u></span>fraction dropped in one training pass'
    '<span class="bar key behind"><i style="width:60%"></i></span>'
    "share of the multiplications of the model that come after the site</footer>"
)


def html(sites: Sequence[Site], title: str) -> str:
    """Return the page: one file, without scripts."""
    lines = "".join(map(_table_row, _rows(sites)))
    ran = any(site.calls for site in sites)
    columns = ("module", "function", "rate", "mode", "multiplications after, shape" if ran else "")
    head = "".join(f"<th>{column}</th>" for column in columns)
    table = (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_escaped(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{_escaped(title)}</h1>"
        f'<p class="lead">{_LEAD_RUN if ran or not sites else _LEAD_READ}</p>'
        f"<dl>{_tiles(sites)}</dl>"
        f"{table if sites else '<p>No randomness found.</p>'}{_LEGEND if ran else ''}"
        "</body></html>\n"
    )


_ROW, _TOP, _WIDTH, _NAMES, _BAR = 24, 58, 860, 300, 260  # pixels


def svg(sites: Sequence[Site], title: str) -> str:
    """Return the picture: a bar of the rate per site, red where it draws in evaluation too, with a
    mark at the measured fraction.
    """
    rows = _rows(sites)
    head = title if len(title) <= 72 else title[:71] + "\N{HORIZONTAL ELLIPSIS}"
    end = _TOP + _ROW * max(len(rows), 1)
    lines = "".join(_svg_row(row, _TOP + _ROW * i) for i, row in enumerate(rows))
    legend = (
        "bar: rate; mark: fraction dropped in one training pass; red: draws in evaluation too"
        if rows
        else "No randomness found."
    )
    notes = _svg_text(16, end + 22, legend, 12) if rows else _svg_text(16, _TOP + 15, legend)
    fonts = "system-ui, Segoe UI, Helvetica, Arial, DejaVu Sans, sans-serif"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{end + 40}" '
        f'viewBox="0 0 {_WIDTH} {end + 40}" '
        f'font-family="{fonts}" font-size="13" fill="#1d2330">'
        f'<rect width="{_WIDTH}" height="{end + 40}" fill="#ffffff"/>'
        f'<text x="16" y="30" font-size="17" font-weight="600">{_escaped(head)}</text>'
        f"{lines}{notes}</svg>\n"
    )


def _svg_text(x: float, y: float, text: str, size: int = 13) -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="#667085">{_escaped(text)}</text>'


def _shortened(name: str, length: int) -> str:
    """Cut a name at its beginning, since its end tells more."""
    return name if len(name) <= length else "\N{HORIZONTAL ELLIPSIS}" + name[1 - length :]


def _svg_row(row: _Row, y: int) -> str:
    x = 16 + 16 * row.level
    if row.site is None:
        return _svg_text(x, y + 15, _shortened(row.label, (_WIDTH - x) // 9))
    site, left = row.site, 16 + _NAMES
    label = _shortened(row.label, max((left - x) // 9, 4))
    parts = [
        f'<text x="{x}" y="{y + 15}" font-weight="550">{_escaped(label)}</text>',
        f'<rect x="{left}" y="{y + 4}" width="{_BAR}" height="13" rx="4" fill="#eef0f3"/>',
    ]
    if site.rate is not None:
        color = "#b42318" if site.in_eval else "#3f6fd8"
        width = _BAR * min(1.0, max(0.0, site.rate))
        parts.append(
            f'<rect x="{left}" y="{y + 4}" width="{width:.1f}" height="13" rx="4" fill="{color}"/>'
        )
    if site.measured is not None:
        mark = left + _BAR * site.measured - 1
        parts.append(f'<rect x="{mark:.1f}" y="{y + 1}" width="2" height="19" fill="#1d2330"/>')
    number = "no rate" if site.rate is None else f"{site.rate:.3g}"
    mode = "draws in evaluation too" if site.in_eval else "" if site.in_train else "never draws"
    return "".join(parts) + _svg_text(
        left + _BAR + 12, y + 15, ", ".join(t for t in (number, site.kind, mode) if t)
    )
