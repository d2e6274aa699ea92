"""One HTML file for a person: verdicts, a timeline of the faults over the plots, every fault."""

from __future__ import annotations

import html
import json
import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from chaos.campaign import Result
from chaos.verdicts import Fault, latencies, throughput

WIDTH, LEFT, RIGHT = 1100, 64, 12
PLOT, GAP, LANE = 130, 34, 18
STYLE = """
:root { --ink: #1c2430; --soft: #66707f; --line: #d9dee6; --good: #1a7f4b; --bad: #c0322b;
  --blue: #2868b8; --amber: #b7791f; --paper: #ffffff; --shade: #f5f7fa; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1140px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p.sub { color: var(--soft); margin: .25rem 0 1rem; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top;
  padding: .35rem .6rem; border-bottom: 1px solid var(--line); } th { color: var(--soft);
  font-weight: 500; }
pre { white-space: pre-wrap; margin: 0; font: 12px/1.4 ui-monospace, monospace; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.banner { display: inline-block; padding: .15rem .6rem; border-radius: .4rem; color: white; }
svg { width: 100%; height: auto; background: var(--shade); border-radius: .5rem; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
svg .name { fill: var(--ink); } .number { text-align: right; font-variant-numeric: tabular-nums; }
"""


class Axis:
    """Seconds of the run to a place on the picture."""

    def __init__(self, result: Result) -> None:
        self.begin = result.began
        self.seconds = max(1.0, result.ended - result.began)

    def x(self, moment: float) -> float:
        share = min(1.0, max(0.0, (moment - self.begin) / self.seconds))
        return LEFT + share * (WIDTH - LEFT - RIGHT)


def step(most: float, wanted: int = 4) -> float:
    """A round distance of lines, so that about `wanted` of them fit below `most`."""
    if most <= 0:
        return 1.0
    raw = most / wanted
    power = 10 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)


def polyline(points: Sequence[tuple[float, float]], colour: str) -> str:
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{text}" fill="none" stroke="{colour}" stroke-width="1.3"/>'


def _grid(top: float, most: float, unit: str, title: str) -> list[str]:
    parts = [f'<text x="{LEFT}" y="{top - 8}" class="name">{html.escape(title)}</text>']
    distance = step(most)
    value = 0.0
    while value <= most + 1e-9:
        y = top + PLOT - value / most * PLOT
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
            'stroke="var(--line)"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}{unit}</text>'
        )
        value += distance
    return parts


def _series(axis: Axis, values: Sequence[float], top: float, most: float, colour: str) -> str:
    points = [
        (axis.x(axis.begin + second + 0.5), top + PLOT - min(value, most) / most * PLOT)
        for second, value in enumerate(values)
    ]
    return polyline(points, colour)


def lanes(faults: Sequence[Fault]) -> list[int]:
    """The row of each fault, so that those which overlap are below each other."""
    ends: list[float] = []
    rows = []
    for fault in faults:
        for row, end in enumerate(ends):
            if fault.began >= end:
                ends[row] = fault.ended
                break
        else:
            row = len(ends)
            ends.append(fault.ended)
        rows.append(row)
    return rows


def picture(result: Result) -> str:
    """Throughput, latency and faults above one axis of time, as SVG."""
    axis = Axis(result)
    faults = sorted(result.faults, key=lambda fault: fault.began)
    rows = lanes(faults)
    end = result.began + axis.seconds
    rates = throughput(result.record.operations, result.began, end)
    slow = latencies(result.record.operations, result.began, end)
    medians, tails = [m * 1000 for m, _ in slow], [t * 1000 for _, t in slow]
    tops = [GAP, GAP + PLOT + GAP, 2 * (PLOT + GAP) + GAP]
    height = tops[2] + LANE * (max(rows, default=0) + 1) + 30
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img">']
    for fault in faults:
        x, width = axis.x(fault.began), max(1.5, axis.x(fault.ended) - axis.x(fault.began))
        colour = "var(--bad)" if fault.failed else "var(--amber)" if fault.covered else "#8a4fbf"
        parts.append(
            f'<rect x="{x:.1f}" y="{tops[0]}" width="{width:.1f}" '
            f'height="{2 * PLOT + GAP}" fill="{colour}" opacity="0.10"/>'
        )
    parts += _grid(tops[0], max([*rates, 1]), "", "operations answered in each second")
    parts.append(_series(axis, rates, tops[0], max([*rates, 1]), "var(--blue)"))
    most = max([*tails, 1.0])
    parts += _grid(tops[1], most, " ms", "latency: median and 99th percentile of each second")
    parts.append(_series(axis, tails, tops[1], most, "var(--amber)"))
    parts.append(_series(axis, medians, tops[1], most, "var(--blue)"))
    parts.append(f'<text x="{LEFT}" y="{tops[2] - 8}" class="name">faults</text>')
    parts += [
        _bar(axis, fault, tops[2] + row * LANE) for fault, row in zip(faults, rows, strict=True)
    ]
    parts += _times(axis, height)
    return "".join(parts) + "</svg>"


def _bar(axis: Axis, fault: Fault, y: float) -> str:
    x, width = axis.x(fault.began), max(2.0, axis.x(fault.ended) - axis.x(fault.began))
    colour = "var(--bad)" if fault.failed else "var(--amber)" if fault.covered else "#8a4fbf"
    title = html.escape(f"{fault.name}: {fault.what}")
    label = html.escape(fault.name) if width > 7 * len(fault.name) or axis.seconds < 400 else ""
    anchor, place = ("end", x - 3) if x > WIDTH * 0.85 else ("start", x + width + 3)
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{LANE - 6}" rx="2" '
        f'fill="{colour}"><title>{title}</title></rect>'
        + (
            f'<text x="{place:.1f}" y="{y + 10}" text-anchor="{anchor}">{label}</text>'
            if label
            else ""
        )
    )


def _times(axis: Axis, height: float) -> list[str]:
    parts, moment = [], 0.0
    distance = step(axis.seconds, 8)
    while moment <= axis.seconds:
        x = axis.x(axis.begin + moment)
        parts.append(f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle">{moment:g} s</text>')
        moment += distance
    return parts


def _verdicts(result: Result) -> str:
    rows = "".join(
        f'<tr><td class="{"good" if v.good else "bad"}">{"holds" if v.good else "BROKEN"}</td>'
        f"<td>{html.escape(v.name)}</td><td><pre>{html.escape(v.detail)}</pre></td></tr>"
        for v in result.verdicts
    )
    return f"<table><tr><th></th><th>what must be true</th><th>seen</th></tr>{rows}</table>"


def _faults(result: Result) -> str:
    rows = []
    for fault in sorted(result.faults, key=lambda fault: fault.began):
        proof = "not needed"
        if fault.failed:
            proof = f'<span class="bad">{html.escape(fault.failed)}</span>'
        elif fault.proven is not None:
            proof = f"after {fault.proven - fault.began:.1f} s"
        rows.append(
            f'<tr><td class="number">{fault.began - result.began:.1f} s</td>'
            f'<td class="number">{fault.ended - fault.began:.1f} s</td>'
            f"<td>{html.escape(fault.name)}</td><td>{html.escape(fault.what)}</td>"
            f"<td>{proof}</td><td>{'yes' if fault.covered else 'no'}</td></tr>"
        )
    head = "<tr><th>at</th><th>lasted</th><th>fault</th><th>of</th><th>seen by a probe</th>"
    return f"<table>{head}<th>writes must go on</th></tr>{''.join(rows)}</table>"


def _errors(result: Result) -> str:
    counts = Counter(op.error for op in result.record.operations if op.error)
    rows = "".join(
        f'<tr><td>{html.escape(name)}</td><td class="number">{count}</td></tr>'
        for name, count in counts.most_common()
    )
    return f"<table><tr><th>answer</th><th>how often</th></tr>{rows}</table>"


def page(result: Result, title: str) -> str:
    """The whole file."""
    word, kind = ("all verdicts hold", "good") if result.good else ("BROKEN", "bad")
    when = datetime.fromtimestamp(result.began, UTC).strftime("%Y-%m-%d %H:%M UTC")
    answered = sum(not op.error for op in result.record.operations)
    minutes = (result.ended - result.began) / 60
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{html.escape(title)} <span class="banner" style="background:var(--{kind})">{word}</span></h1>
<p class="sub">seed {result.seed}, {when}, {minutes:.1f} minutes, {len(result.faults)} faults,
{answered} operations answered of {len(result.record.operations)}</p>
{_verdicts(result)}
<h2>Timeline</h2>
<p class="sub">Amber: the promise covers it. Violet: it goes past the promise. Red: not real.</p>
{picture(result)}
<h2>Faults</h2>{_faults(result)}
<h2>Errors that clients saw</h2>{_errors(result)}
</body></html>
"""


def write(result: Result, path: Path, title: str) -> None:
    """The page, and beside it the same as JSON for programs."""
    path.write_text(page(result, title))
    summary = {
        "seed": result.seed,
        "good": result.good,
        "seconds": result.ended - result.began,
        "operations": len(result.record.operations),
        "faults": [fault._asdict() for fault in result.faults],
        "verdicts": [verdict._asdict() for verdict in result.verdicts],
    }
    path.with_suffix(".json").write_text(json.dumps(summary, indent=1))
