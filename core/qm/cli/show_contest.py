"""A comparison on the terminal: a row a model, the front, then how it was measured and what went wrong."""

from __future__ import annotations

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from qm.cli.screen import show, table
from qm.cli.show_report import size
from qm.contest import Contest, Entry
from qm.measurement import BUSY, duration
from qm.verdict import Accuracy, Answer

STYLES = {"not worse": "green", "faster": "green", "worse": "red", "slower": "red", "failed": "bold red"}
FRONT = "*"


def print_contest(contest: Contest) -> None:
    """Print the contest."""
    lines = [*_failures(contest), *_front(contest), *_circumstances(contest), *_notes(contest), *_next(contest)]
    show(contest_table(contest), "", *(labelled(name, text) for name, text in lines))


def labelled(name: str, text: str) -> RenderableType:
    """A word, and beside it text that wraps under itself."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(min_width=9, no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(name, style=STYLES.get(name, "bold")), Text(text))
    return grid


def contest_table(contest: Contest) -> Table:
    """A row a model: in each column a figure, and below it its interval."""
    answers = _answers_title(contest)
    judged = any(_answer(e)[0] or e.failed for e in contest.entries)
    optional = [answers] * bool(answers) + ["verdict"] * judged
    made = table(
        "model", "size, gzip", "latency", "speed", *optional, right=("size, gzip", "latency", "speed", answers)
    )
    made.padding, made.leading = (0, 1, 0, 0), 1
    for entry in contest.entries:
        cells: list[RenderableType] = [
            Text.assemble(entry.name, (f" {FRONT}" if entry.on_front else "", "bold green")),
            _sizes(entry),
            _latency(entry),
            _speed(entry, contest),
        ]
        cells += [_answers(entry, contest)] if answers else []
        made.add_row(*cells, *([_verdict(entry, contest)] if judged else []))
    return made


def _answers_title(contest: Contest) -> str:
    """What answers are judged by; nothing where inputs are made up."""
    if contest.synthetic or not contest.samples:
        return ""
    if any(e.metric is not None for e in contest.entries):
        return "metric"
    if any(e.accuracy is not None for e in contest.entries):
        return "accuracy"
    qualities = [e.quality for e in contest.entries if e.quality is not None]
    return "agreement" if any(q.agreement is not None for q in qualities) else "SQNR"


def _sizes(entry: Entry) -> str:
    if entry.file is None:
        return ""
    return size(entry.file.nbytes) + ("" if entry.gzip_nbytes is None else f"\n{size(entry.gzip_nbytes)}")


def _latency(entry: Entry) -> str:
    found = entry.latency
    if found is None:
        return ""
    middle, low, high = (duration(us) for us in (found.latency_us, found.low_us, found.high_us))
    if len({text.split()[1] for text in (middle, low, high)}) == 1:
        low, high = low.split()[0], high.split()[0]
    return f"{middle}\n{low} to {high}"


def _speed(entry: Entry, contest: Contest) -> Text:
    found = entry.speed
    if found is None:
        return Text("1" if entry.name == contest.timed_against and len(contest.entries) > 1 else "")
    return Text(f"{found.ratio:.2f}x\n{found.low:.2f} to {found.high:.2f}\n").append(_word(found.answer))


def _answers(entry: Entry, contest: Contest) -> str:
    """The figure; of the first model its own interval, of the others the difference and its interval."""
    is_first = entry.name == contest.first
    if (metric := entry.metric) is not None:
        bounds = "" if metric.low is None else f"\n{metric.low:+.3g} to {metric.high:+.3g}"
        return f"{metric.after:.4g}" + ("" if is_first else f"\n{metric.difference:+.3g}{bounds}")
    if (own := entry.accuracy) is not None and (change := _accuracy(entry)) is not None:
        if is_first:
            return f"{100 * own.share:.1f} %\n{_percent(own.low)} to {_percent(own.high)}"
        bounds = f"{100 * change.low:+.1f} to {100 * change.high:+.1f}"
        return f"{100 * own.share:.1f} %\n{100 * change.difference:+.1f}\n{bounds}"
    if entry.quality is None or is_first:
        return ""
    if (found := entry.quality.agreement) is not None:
        return f"{100 * found.share:.1f} %\n{_percent(found.low)} to {_percent(found.high)}"
    return "identical" if entry.quality.sqnr_db is None else f"{entry.quality.sqnr_db:.1f} dB"


def _percent(share: float) -> str:
    return "100" if share > 0.9995 else f"{100 * share:.1f}"


def _verdict(entry: Entry, contest: Contest) -> Text:
    """What can be said of the answers against the margin."""
    if entry.failed is not None:
        return _word("failed")
    answer, needed = _answer(entry)
    if answer is None or entry.name == contest.first:
        return Text("")
    return _word(answer).append(f"\nneeds {needed:,}" if needed else "")


def _word(word: str) -> Text:
    return Text(word, style=STYLES.get(word, "yellow"))


def _answer(entry: Entry) -> tuple[Answer | None, int | None]:
    if entry.metric is not None:
        return entry.metric.answer, entry.metric.needed
    found = _accuracy(entry)
    return (None, None) if found is None else (found.answer, found.needed)


def _accuracy(entry: Entry) -> Accuracy | None:
    return entry.quality.accuracy if entry.quality is not None else None


def _failures(contest: Contest) -> list[tuple[str, str]]:
    failed = [(e.name, e.failed) for e in contest.entries if e.failed is not None]
    return [("failed", f"{name}: {f.message}" + (f"\n{f.hint}" if f.hint else "")) for name, f in failed]


def _front(contest: Contest) -> list[tuple[str, str]]:
    if sum(e.failed is None for e in contest.entries) < 2 or not contest.front_over:
        return []
    respects = ", ".join(contest.front_over)
    lines = [("front", f"{FRONT} marks the models that no other beats beyond doubt in {respects}")]
    return lines + [("", f"{e.name} is beaten by {e.beaten_by}") for e in contest.entries if e.beaten_by]


def _circumstances(contest: Contest) -> list[tuple[str, str]]:
    timed = [e.latency for e in contest.entries if e.latency is not None]
    if not timed:
        return []
    threads = "1 thread" if contest.threads == 1 else f"{contest.threads} threads"
    runtimes = "; ".join(dict.fromkeys(found.runtime for found in timed))
    blocks = [round(found.blocks / found.rounds) for found in timed]
    rounds = [found.rounds for found in timed]
    processes = "1 process" if max(rounds) == 1 else f"{_span(rounds)} processes"
    words = f"{contest.cache} cache, {threads}, {processes} of {_span(blocks)} blocks; {runtimes}"
    if contest.noise_floor is not None:
        words += f"; A/A noise floor ±{100 * contest.noise_floor:.1f} %; speed is against {contest.timed_against}"
    busy = "; the machine is busy" if contest.threads == 1 and min(found.cpu_share for found in timed) < BUSY else ""
    return [("timing", words + busy), ("machine", contest.cpu)]


def _span(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _notes(contest: Contest) -> list[tuple[str, str]]:
    notes = []
    if contest.samples:
        margin = next((a.margin for e in contest.entries if (a := _accuracy(e)) is not None), None)
        unit = "point" if margin == 0.01 else "points"
        worse = "" if margin is None else f"; worse means by more than {100 * margin:g} {unit}"
        notes.append(f"{contest.samples} samples, answers held against {contest.first}{worse}; intervals are of 95 %")
    notes += contest.notes
    notes += [f"{e.name}: {note}" for e in contest.entries for note in e.notes]
    return [("note", note) for note in notes]


def _next(contest: Contest) -> list[tuple[str, str]]:
    doubtful = [e.speed for e in contest.entries if e.speed is not None and e.speed.answer == "cannot tell"]
    return [("next", f"to tell the speeds apart, add {doubtful[0].remedy()}")] if doubtful else []
