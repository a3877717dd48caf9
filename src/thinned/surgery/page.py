"""Sites as a page and as a picture: the model as a tree, with what each place drops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .sites import Site

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2330; --soft: #667085; --line: #e4e7ec; --back: #ffffff; --panel: #f7f8fa;
  --rate: #3f6fd8; --measured: #1d2330; --behind: #b9c3d6; --good: #17803d; --goodback: #e5f5ea; --bad: #b42318;
  --badback: #fdeceb; --idle: #667085; --idleback: #eef0f3; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaf0; --soft: #98a2b3; --line: #2b3240; --back: #12161d;
  --panel: #1a1f29; --rate: #7ea2f5; --measured: #ffffff; --behind: #465268; --good: #6fd694; --goodback: #173324;
  --bad: #ff9c91; --badback: #40201e; --idle: #98a2b3; --idleback: #252b37; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 2.2rem clamp(1rem, 4vw, 3.5rem) 3rem; background: var(--back); color: var(--ink);
  font: 15px/1.45 system-ui, "Segoe UI", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; font-weight: 650; letter-spacing: -.01em; margin: 0 0 .3rem; }
p.lead { color: var(--soft); margin: 0 0 1.6rem; max-width: 62rem; }
dl { display: flex; flex-wrap: wrap; gap: .8rem; margin: 0 0 1.8rem; }
dl div { background: var(--panel); border-radius: 10px; padding: .7rem 1.1rem; min-width: 8.5rem; }
dt { color: var(--soft); font-size: .8rem; }
dd { margin: 0; font-size: 1.45rem; font-weight: 600; font-variant-numeric: tabular-nums; }
dd.bad { color: var(--bad); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; min-width: 54rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-size: .78rem; font-weight: 550; color: var(--soft); padding: .35rem .9rem .45rem 0;
  border-bottom: 1px solid var(--line); white-space: nowrap; }
td { padding: .42rem .9rem .42rem 0; border-bottom: 1px solid var(--line); vertical-align: top; line-height: 1.35;
  white-space: nowrap; }
tr.group td { border-bottom: 0; padding: .75rem 0 .15rem; color: var(--soft); font-size: .88rem; }
tr.group b { color: var(--ink); font-weight: 600; }
tbody tr.site:hover { background: var(--panel); }
.name { font-weight: 550; }
.kind, .where { color: var(--soft); font-size: .84rem; }
.where { font-family: ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .78rem; }
.bar { position: relative; width: 9rem; height: .85rem; border-radius: 4px; background: var(--idleback); display: inline-block;
  vertical-align: -2px; margin-right: .6rem; }
.bar i { position: absolute; inset: 0 auto 0 0; border-radius: 4px; background: var(--rate); }
.bar u { position: absolute; top: -3px; bottom: -3px; width: 2px; margin-left: -1px; background: var(--measured);
  border-radius: 1px; }
.behind { width: 4.5rem; }
.behind i { background: var(--behind); }
.pill { display: inline-block; padding: .08rem .55rem; border-radius: 99px; font-size: .78rem; font-weight: 550; }
.yes { color: var(--good); background: var(--goodback); } .alarm { color: var(--bad); background: var(--badback); }
.no { color: var(--idle); background: var(--idleback); }
footer { margin-top: 1.6rem; color: var(--soft); font-size: .84rem; max-width: 62rem; }
.key { display: inline-block; width: 2.2rem; margin: 0 .35rem 0 .8rem; } .key:first-child { margin-left: 0; }
"""


@dataclass(frozen=True)
class _Row:
    """A line of the tree: a site, or a module that sites stand in."""

    level: int
    label: str
    site: Site | None


@dataclass
class _Node:
    """A module with its sites and the modules in it, in the order of the pass."""

    sites: list[Site] = field(default_factory=list)
    children: dict[str, _Node] = field(default_factory=dict)

    def rows(self, level: int, label: str) -> Iterator[_Row]:
        """Its lines; a chain of modules without sites is one."""
        while not self.sites and len(self.children) == 1:
            ((name, only),) = self.children.items()
            self, label = only, f"{label}.{name}".lstrip(".")
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
        return [*(_Row(0, "(the model)", s) for s in root.sites), *_Node([], root.children).rows(0, "")]
    return list(root.rows(0, ""))


def _bar(site: Site) -> str:
    rate = f'<i style="width:{100 * site.rate:.2f}%"></i>' if site.rate is not None else ""
    measured = f'<u style="left:{100 * site.measured:.2f}%"></u>' if site.measured is not None else ""
    number = "no rate" if site.rate is None else f"{site.rate:.3g}"
    seen = "" if site.measured is None else f'<br><span class="kind">measured {site.measured:.3f}</span>'
    return f'<span class="bar">{rate}{measured}</span>{number}{seen}'


def _behind(site: Site) -> str:
    if site.flops_behind is None:
        return ""
    share = f"{site.flops_behind:.0%}"
    return f'<span class="bar behind"><i style="width:{100 * site.flops_behind:.2f}%"></i></span>{share}'


def _pills(site: Site) -> str:
    train = ("yes", "train: draws") if site.in_train else ("no", "train: quiet")
    evaluation = ("alarm", "eval: draws") if site.in_eval else ("no", "eval: quiet")
    return " ".join(f'<span class="pill {kind}">{text}</span>' for kind, text in (train, evaluation))


def _line(row: _Row) -> str:
    indent = f'style="padding-left:{1.4 * row.level:.1f}rem"'
    if row.site is None:
        return f'<tr class="group"><td colspan="5" {indent}><b>{escape(row.label)}</b></td></tr>'
    site = row.site
    shape = "" if site.shape is None else " x ".join(map(str, site.shape))
    calls = f", {site.calls} calls" if site.calls > 1 else ""
    return (
        f'<tr class="site"><td {indent}><span class="name">{escape(row.label)}</span> '
        f'<span class="kind">{escape(site.module)}</span></td>'
        f'<td class="kind">{escape(site.function)}{calls}<br><span class="where" title="{escape(site.where)}">'
        f"{escape(_short(site.where))}</span></td><td>{_bar(site)}</td><td>{_pills(site)}</td>"
        f'<td>{_behind(site)}<br><span class="kind">{shape}</span></td></tr>'
    )


def _short(where: str) -> str:
    """The last two parts of a file's path: enough to know it by."""
    return "/".join(where.replace("\\", "/").split("/")[-2:])


def _tiles(sites: Sequence[Site]) -> str:
    on = sum(s.in_eval for s in sites)
    rates = [s.rate for s in sites if s.rate is not None]
    span = "none" if not rates else f"{min(rates):.3g}" if min(rates) == max(rates) else f"{min(rates):.3g} to {max(rates):.3g}"
    tiles = [
        ("places that draw", str(len(sites)), ""), ("rates", span, ""),
        ("draw in training", str(sum(s.in_train for s in sites)), ""),
        ("draw in evaluation", str(on), ' class="bad"' if on else ""),
    ]  # fmt: skip
    return "".join(f"<div><dt>{name}</dt><dd{css}>{value}</dd></div>" for name, value, css in tiles)


def html(sites: Sequence[Site], title: str) -> str:
    """The page, whole in one file, without scripts."""
    lines = "".join(map(_line, _rows(sites)))
    head = "".join(f"<th>{h}</th>" for h in ("module", "draws by", "rate", "mode", "computed behind it, shape"))
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        '<p class="lead">Every place where this model draws at random, in the order of the pass.</p>'
        f"<dl>{_tiles(sites)}</dl>{table if sites else '<p>No randomness found.</p>'}"
        '<footer><span class="bar key"><i style="width:60%"></i></span>the rate that it is told'
        '<span class="bar key"><u style="left:60%"></u></span>the share that fell in one pass'
        '<span class="bar key behind"><i style="width:60%"></i></span>'
        "the share of the model's multiplications that come after it"
        "</footer></body></html>\n"
    )


_ROW, _TOP, _NAMES, _BAR = 24, 58, 300, 260


def svg(sites: Sequence[Site], title: str) -> str:
    """The picture: one bar a place, the measured share as a mark, evaluation in red where it draws."""
    rows = _rows(sites)
    height = _TOP + _ROW * len(rows) + 20
    lines = "".join(_drawn(row, _TOP + _ROW * i) for i, row in enumerate(rows))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="860" height="{height}" viewBox="0 0 860 {height}" '
        'font-family="system-ui, Segoe UI, Helvetica, Arial, DejaVu Sans, sans-serif" font-size="13" fill="#1d2330">'
        f'<rect width="860" height="{height}" fill="#ffffff"/>'
        f'<text x="16" y="30" font-size="17" font-weight="600">{escape(title)}</text>{lines}</svg>\n'
    )


def _drawn(row: _Row, y: int) -> str:
    x = 16 + 16 * row.level
    if row.site is None:
        return f'<text x="{x}" y="{y + 15}" fill="#667085">{escape(row.label)}</text>'
    site, left = row.site, 16 + _NAMES
    parts = [
        f'<text x="{x}" y="{y + 15}" font-weight="550">{escape(row.label[:34])}</text>',
        f'<rect x="{left}" y="{y + 4}" width="{_BAR}" height="13" rx="4" fill="#eef0f3"/>',
    ]
    if site.rate is not None:
        colour = "#b42318" if site.in_eval else "#3f6fd8"
        parts.append(f'<rect x="{left}" y="{y + 4}" width="{_BAR * site.rate:.1f}" height="13" rx="4" fill="{colour}"/>')
    if site.measured is not None:
        parts.append(f'<rect x="{left + _BAR * site.measured - 1:.1f}" y="{y + 1}" width="2" height="19" fill="#1d2330"/>')
    number = "" if site.rate is None else f"{site.rate:.3g}"
    mode = "draws in evaluation too" if site.in_eval else "" if site.in_train else "draws nowhere"
    text = ", ".join(t for t in (number, site.kind, mode) if t)
    parts.append(f'<text x="{left + _BAR + 12}" y="{y + 15}" fill="#667085">{escape(text)}</text>')
    return "".join(parts)
