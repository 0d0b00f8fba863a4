"""The story of a run that failed, as a page of its own: what happened when and where, in one picture and one table."""

from __future__ import annotations

from html import escape

from genesis.chaos.explore import Run

WIDTH, ROW, LEFT = 1000, 34, 90
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }}
body {{ color: #1b1b1b; background: #fff }}
h1 {{ font-size: 1.4rem }} pre {{ background: #f2f2f2; padding: .8rem; overflow-x: auto; white-space: pre-wrap }}
table {{ border-collapse: collapse; width: 100% }}
td, th {{ text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top }}
td:first-child {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }}
tr.fault td {{ color: #9a3b00; font-weight: 600 }} svg {{ width: 100%; height: auto }}
@media (prefers-color-scheme: dark) {{ body {{ color: #eee; background: #161616 }} pre {{ background: #262626 }}
tr.fault td {{ color: #ffb07c }} svg text {{ fill: #eee }} }}
</style></head><body>
<h1>{title}</h1>
<p>{error}</p>
<p>The same again:</p><pre>{command}</pre>
{picture}
<table><thead><tr><th>seconds</th><th>where</th><th>what</th></tr></thead><tbody>
{rows}
</tbody></table>
</body></html>
"""


def page(run: Run, command: str) -> str:
    """A self-contained page of HTML."""
    rows = "\n".join(
        f"<tr class={'fault' if what.startswith('fault') else 'other'}><td>{at:.4f}</td><td>{escape(where)}</td>"
        f"<td>{escape(what)}</td></tr>"
        for at, where, what in run.timeline
    )
    return PAGE.format(
        title=f"Seed {run.seed} breaks a promise",
        error=escape(run.error),
        command=escape(command),
        picture=_picture(run.timeline),
        rows=rows,
    )


def _picture(timeline: list[tuple[float, str, str]]) -> str:
    """A line for each place, with a mark for each thing that happened there: a diamond is a fault, a dot is anything else."""
    places = sorted({where for _, where, _ in timeline})
    end = max((at for at, _, _ in timeline), default=0.0) or 1.0
    height = ROW * len(places) + 30
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="What happened when, a line for each place">']
    for row, place in enumerate(places):
        y = ROW * row + 20
        parts.append(f'<text x="0" y="{y + 5}" font-size="14">{escape(place)}</text>')
        parts.append(f'<line x1="{LEFT}" y1="{y}" x2="{WIDTH - 10}" y2="{y}" stroke="#999"/>')
        for at, where, what in timeline:
            if where == place:
                parts.append(_mark(LEFT + (WIDTH - LEFT - 20) * at / end, y, what))
    parts.append(f'<text x="{LEFT}" y="{height - 6}" font-size="12">0 s</text>')
    parts.append(f'<text x="{WIDTH - 70}" y="{height - 6}" font-size="12">{end:.2f} s</text></svg>')
    return "".join(parts)


def _mark(x: float, y: float, what: str) -> str:
    title = f"<title>{escape(what)}</title>"
    if what.startswith("fault"):
        return f'<path d="M{x:.1f} {y - 7} l7 7 l-7 7 l-7 -7 z" fill="#d55e00">{title}</path>'
    return f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="#0072b2">{title}</circle>'
