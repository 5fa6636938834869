"""What one client received, held against what was published and what was done to the stream.

Everything on the client's channels after the position that it subscribed at has to come, or the
client has to be told. What did not come is

- announced, if a notice (`resync`, `recovered:false`) came while the client's position was still
  below it, or within 6 s of an event with `prev` 0 that was the next one on its channel; or if it
  was sent before the `resync` that the client went on after: what was published is loaded then;
- told late, if a notice came within 6 s of when the server moved the position past it: a client
  that is cut off in between never learns of it;
- lost otherwise.
"""

import dataclasses

from .checker import Checker, Claim
from .lives import pos_of
from .segment import Segment
from .truth import Truth, within


@dataclasses.dataclass(frozen=True)
class FalseClaim:
    """A resume that recovered, and the first message that it should have brought."""

    claim: Claim
    missing: int


@dataclasses.dataclass
class Verdict:
    """Of one client, as marks; `expected` is the sum of the next four."""

    expected: int = 0
    delivered: int = 0
    lost: list[int] = dataclasses.field(default_factory=list)
    told_late: list[int] = dataclasses.field(default_factory=list)
    announced: list[int] = dataclasses.field(default_factory=list)
    false_claims: list[FalseClaim] = dataclasses.field(default_factory=list)
    wrong_prev: list[str] = dataclasses.field(default_factory=list)
    # Notices; and those of them without a reason: the client had missed nothing that the stream had
    # lost, and no position of its had been given out again.
    notices: int = 0
    false_alarms: int = 0


# From the best to the worst.
ANNOUNCED, TOLD_LATE, LOST = range(3)


def judge(checker: Checker, truth: Truth, previous: dict[int, int]) -> Verdict:
    """`previous` is that of the truth, which is the same for all clients."""
    verdict = Verdict()
    published = truth.published_on(checker.channels)
    received: set[int] = set()
    missing: dict[int, int] = {}
    # For each segment what is missed for the first time, of what the stream had lost.
    losses: list[set[int]] = []
    for segment, following in zip(checker.segments, [*checker.segments[1:], None]):
        found = {}
        for mark in _expected(segment, following, published, truth):
            if segment.has(mark) or any(other.has(mark) for other in checker.segments):
                received.add(mark)
            else:
                found[mark] = _status(segment, following, mark, truth)
        new = found.keys() - missing.keys()
        losses.append({mark for mark in new if truth.removals.has(mark)})
        _remember(found, missing, truth)
    verdict.delivered, verdict.expected = len(received), len(received) + len(missing)
    kinds = {ANNOUNCED: verdict.announced, TOLD_LATE: verdict.told_late, LOST: verdict.lost}
    for mark in sorted(missing):
        kinds[missing[mark]].append(mark)
    verdict.notices = sum(segment.is_told for segment in checker.segments)
    verdict.false_alarms = _false_alarms(checker, truth, losses)
    verdict.false_claims = _false_claims(checker, truth, published)
    verdict.wrong_prev = _wrong_prev(checker, previous)
    return verdict


def _remember(found: dict[int, int], missing: dict[int, int], truth: Truth) -> None:
    """What was taken out of the stream does not come after another start, either: it was told
    before, or it was not. Of what the stream still holds, the worst counts."""
    for mark, status in found.items():
        known = missing.setdefault(mark, status)
        if not truth.removals.has(mark):
            missing[mark] = max(status, known)


def _expected(
    segment: Segment, following: Segment | None, published: list[int], truth: Truth
) -> list[int]:
    """What has to come after a segment's start and before the next one. What an older store took
    away counts to where the client was before, although the next start may be below it."""
    is_in = truth.lives.is_in
    end = published[-1] if published else 0
    seen = (mark for mark in within(published, segment.start, end) if is_in(mark, segment.view))
    if following is None:
        return list(seen)
    return [mark for mark in seen if mark <= following.start or not is_in(mark, following.view)]


def _status(segment: Segment, following: Segment | None, mark: int, truth: Truth) -> int:
    if segment.is_loaded(truth.sent_at(mark)):
        return ANNOUNCED
    if following is None:
        return LOST
    if segment.position is None or mark > segment.position:
        return ANNOUNCED
    if segment.is_doubted(truth.channel_of(mark), mark):
        return ANNOUNCED
    before = segment.position_before
    return TOLD_LATE if before is None or mark > before else LOST


def _false_alarms(checker: Checker, truth: Truth, losses: list[set[int]]) -> int:
    """A notice has its reason in what is missing before it, in what it made the client load, or in
    positions that are given out again."""
    alarms = 0
    for index, segment in enumerate(checker.segments[:-1]):
        following = checker.segments[index + 1]
        ours, theirs = losses[index], losses[index + 1]
        is_lost = any(not segment.is_loaded(truth.sent_at(mark)) for mark in ours)
        is_loaded = any(following.is_loaded(truth.sent_at(mark)) for mark in theirs)
        has_reason = is_lost or is_loaded or following.view != segment.view
        alarms += segment.is_told and not has_reason
    return alarms


def _false_claims(checker: Checker, truth: Truth, published: list[int]) -> list[FalseClaim]:
    found = []
    for claim in checker.claims:
        for mark in within(published, claim.after, claim.until):
            if not truth.lives.is_in(mark, claim.view):
                continue
            if not any(segment.has(mark) for segment in checker.segments):
                found.append(FalseClaim(claim, mark))
                break
    return found


def _wrong_prev(checker: Checker, previous: dict[int, int]) -> list[str]:
    """Each event once, also if a contradiction in the truth leaves it without a place."""
    told = zip(*checker.told_prev)
    wrong = {(mark, prev) for mark, prev in told if previous.get(mark, prev) != prev}
    return [
        f"the event at {pos_of(mark)} had prev {prev}, the message before it is at {previous[mark]}"
        for mark, prev in sorted(wrong)
    ]
