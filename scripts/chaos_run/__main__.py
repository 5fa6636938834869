"""Arguments, the run, its summary, and the exit code."""

import asyncio
import json
import os
import pathlib
import shutil
import signal
import sys

from . import options, plan, summary


def say(text: str) -> None:
    print(text, flush=True)


async def carry_out(chosen, faults: list[plan.Fault]) -> int:
    # Not needed for --help and --plan, and not there before scripts/chaos has installed packages.
    from .run import run

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    folder = pathlib.Path(chosen.folder) / f"{chosen.seed}-{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        result = summary.summarize(await run(chosen, faults, folder, say))
    finally:
        for store in folder.glob("broker-?*/"):
            shutil.rmtree(store)
    say(summary.text(result))
    if result["passed"] and not chosen.keep:
        shutil.rmtree(folder)
    else:
        say(f"logs: {folder}")
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")
    return 0 if result["passed"] else 1


def main() -> int:
    chosen = options.parse(sys.argv[1:])
    seconds = chosen.minutes * 60
    faults = plan.draw(chosen.seed, seconds, chosen.faults, chosen.instances, chosen.nodes)
    say(f"seed {chosen.seed}, {len(faults)} faults:")
    for fault in faults:
        say(str(fault))
    for kind in chosen.left_out:
        say(f"{kind} needs --nodes 1 and is left out")
    if chosen.plan:
        return 0
    try:
        return asyncio.run(carry_out(chosen, faults))
    except asyncio.CancelledError:
        print("scripts/chaos: interrupted", file=sys.stderr)
        return 130


sys.exit(main())
