"""Prints the Autobahn|Testsuite's index.json as a table per section, then every case that is
neither OK nor INFORMATIONAL.

Fails if a case failed, was closed wrongly, or did not run; with --strict if anything is listed.
"""

import argparse
import collections
import json
import sys

BEHAVIORS = ["OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED"]
CLOSES = ["OK", "INFORMATIONAL", "WRONG CODE", "UNCLEAN", "FAILED BY CLIENT", "FAILED"]
GOOD = {"OK", "INFORMATIONAL"}
TOLERABLE = GOOD | {"NON-STRICT", "UNIMPLEMENTED"}


def number(case: str) -> list[int]:
    return [int(part) for part in case.split(".")]


def row(cells: list) -> str:
    first, *rest = (str(cell) for cell in cells)
    widths = [max(6, len(name)) for name in ["ms", "cases", *BEHAVIORS, *CLOSES]]
    return f"{first:>7}  " + "  ".join(f"{cell:>{width}}" for cell, width in zip(rest, widths))


def table(results: dict) -> list[str]:
    sections = collections.defaultdict(list)
    for case, result in sorted(results.items(), key=lambda item: number(item[0])):
        sections[case.split(".")[0]].append(result)
    sections["all"] = list(results.values())
    lines = [
        row(["", "", "", "behavior", *[""] * (len(BEHAVIORS) - 1), "close"]),
        row(["section", "ms", "cases", *BEHAVIORS, *CLOSES]),
    ]
    for section, members in sections.items():
        behaviors = collections.Counter(member["behavior"] for member in members)
        closes = collections.Counter(member["behaviorClose"] for member in members)
        spent = sum(member["duration"] for member in members)
        counts = [behaviors[name] for name in BEHAVIORS] + [closes[name] for name in CLOSES]
        lines.append(row([section, spent, len(members), *(count or "-" for count in counts)]))
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--wanted", type=int, required=True, help="how many cases were to run")
    parser.add_argument("index")
    arguments = parser.parse_args()
    with open(arguments.index, encoding="utf-8") as file:
        (results,) = json.load(file).values()
    print("\n".join(table(results)))
    accepted = GOOD if arguments.strict else TOLERABLE
    bad = 0
    listed = collections.defaultdict(list)
    for case, result in sorted(results.items(), key=lambda item: number(item[0])):
        seen = (result["behavior"], result["behaviorClose"])
        bad += not accepted.issuperset(seen)
        if not GOOD.issuperset(seen):
            listed[*seen, result["remoteCloseCode"]].append(case)
    for (behavior, close, code), cases in listed.items():
        print(f"{behavior}, close {close} ({code}): {' '.join(cases)}")
    missing = arguments.wanted - len(results)
    if missing or not results:
        print(f"{missing} of {arguments.wanted} cases did not run")
    if bad:
        print(f"{bad} cases failed")
    return 1 if bad or missing or not results else 0


sys.exit(main())
