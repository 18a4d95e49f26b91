"""Writes a synthetic feedback log of a support desk, with which the project runs as it is.

A ticket holds details (customer, product, fault) that a good response must use, so a few templates
are not enough for a good model. A response consists of four moves, each of its own quality: greet,
address the problem, act, close. About half of the responses are rated, and a few lines are broken
on purpose. Everything follows from the seed, ticket by ticket, so a million rows are written in
constant memory.
"""

import json
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

NUM_TICKETS = 400
BROKEN_SHARE, REPEATED_SHARE, RATED_SHARE = 0.015, 0.015, 0.5
START = datetime(2026, 1, 5, 8, tzinfo=UTC)

Move = dict[str, tuple[str, ...]]

NAMES = (
    "Ada Amir Ana Ben Carla Chen Dana Elif Emma Felix Grace Hana Hugo Ines Ivan Jonas Kofi Lea "
    "Leo Lucia Maria Mateo Maya Mina Nadia Nils Noah Olga Omar Paula Pedro Priya Rosa Ruben "
    "Sami Sara Sofia Tariq Theo Tomas Vera Yuki Zoe Zuri"
).split()

PRODUCTS = (
    "AeroFan fan, AquaPure filter, BakeWell oven, BrewMate kettle, CleanBot vacuum, CoolBox "
    "fridge, CrispAir fryer, DryFast dryer, FreshMix blender, GlowLamp lamp, HeatPro heater, "
    "IronEase iron, JuiceOne juicer, MistAir humidifier, PressGo printer, PureToast toaster, "
    "QuietWash washer, RiceJoy cooker, SafeLock lock, SmartCam camera, SonicBrush toothbrush, "
    "SoundBar speaker, TimeFit watch, WarmBed blanket"
).split(", ")

FAULTS = (
    "does not turn on, makes a loud noise, leaks on the floor, stopped after two days, smells "
    "of smoke, came without a cable, has a cracked lid, shows an error code, gets far too hot, "
    "arrived scratched, has a broken handle, keeps switching off, will not charge, lost its "
    "settings, has a loose button, blinks red all night, is missing a screw, does not fit the "
    "manual, trips the fuse, rattles badly"
).split(", ")

# {a|b} is one of the two, <name> a detail of the ticket.
TICKETS = (
    "{Hi|Hello|Good morning}, this is <name>. My <product> <fault>. {Can you help|What can I do}?",
    "{Hello|Hi there}, I am <name> and my {new |}<product> <fault>. {Please advise|I need help}.",
    "{Dear team|Dear support}, my <product> <fault>. {Please fix this|How do I return it}? "
    "{Thanks|Regards}, <name>",
    "It is <name> again. The <product> that I {bought|ordered} {last week|in spring} <fault>. "
    "{What now|Any advice}?",
    "{Quick question|A question}: the <product> <fault>. {Is that covered|Do I get a refund}? "
    "{Yours|Best}, <name>",
)

GREET: Move = {
    "good": (
        "{Hi|Hello|Dear} <name>, {thank you for writing|thanks for reaching out|thanks for "
        "telling us}.",
        "{Hello|Hi} <name>, {we are glad that you wrote|it is good to hear from you}.",
        "{Thank you|Many thanks}, <name>, {for your message|for letting us know}.",
    ),
    "plain": (
        "{Hello|Hi}, {we got your message|your ticket was received|this is the support desk}.",
        "{Dear customer|Dear user}, {your request was read|we have your ticket}.",
    ),
    "rude": (
        "{Oh great|Oh no}, {another one|you again}, {what a stupid ticket|this is a dumb "
        "question}.",
        "{Look|Listen}, {we have better things to do|nobody here has time for this crap}.",
    ),
}

PROBLEM: Move = {
    "good": (
        "{I am sorry|We are sorry} that your <product> <fault>.",
        "A <product> that <fault> is {not what you paid for|not good enough}, and {I "
        "apologise|we regret it}.",
        "{I understand|I see} that the <product> <fault>, {sorry for the trouble|which must be "
        "annoying}.",
    ),
    "plain": (
        "{I am sorry|We are sorry} that {something is wrong|it does not work} with {your "
        "order|the item}.",
        "{We see|It seems} that {the device|the item|your unit} has {a problem|an issue} "
        "{today|again}.",
    ),
    "wrong": (
        "{I am sorry|We are sorry} that your <other> <fault>.",
        "{I understand|I see} that the <other> <fault>, {sorry for the trouble|which must be "
        "annoying}.",
    ),
    "rude": (
        "{You broke it yourself|It is your own fault}, {any moron can see that|you damn fool}.",
        "{Only an ass|Only a moron} {would use it like that|would break it so fast}.",
    ),
}

ACT: Move = {
    "good": (
        "{We will send|I am sending} {a free replacement|a new one} {today|by tomorrow|this week}.",
        "{I have booked|We arranged} {a free repair|a full refund} and {a pick-up at your "
        "door|a return label}.",
        "{Please unplug it for a minute|Please reset it once}, and {if that fails we will "
        "replace it|we gladly refund it if that fails}.",
    ),
    "plain": (
        "{Please check|You can read} {the manual|the help page} {for further steps|on our site}.",
        "{We may look at it|Somebody may call you} {in a few weeks|at a later time}.",
    ),
    "rude": (
        "{We will not do anything|There is no refund}, {so stop asking|so live with it}.",
        "{Throw it away|Buy a better one} and {leave us alone|do not write again}.",
    ),
}

CLOSE: Move = {
    "good": (
        "{Happy to help further|We are glad to help}, {your support team|have a lovely day}!",
        "{Thank you for your patience|Thanks for your trust}, {all the best|kind regards}!",
    ),
    "plain": (
        "{This ticket is closed|The case is closed} {for now|from our side}.",
        "{Do not reply|No reply is needed} to {this message|this mail}.",
    ),
    "rude": (
        "{Do not waste our time|Stop whining}, {idiot|you stupid fool}.",
        "{Get lost|Go to hell} {and never come back|with your junk}.",
    ),
}

MOVES = (GREET, PROBLEM, ACT, CLOSE)
# Worth of a move in the eyes of a person who rates the response.
WORTH = {"good": 1.0, "plain": 0.1, "wrong": -0.9, "rude": -1.8}
# Three hands write the responses: how often each makes a move of a kind.
WRITERS = {
    "desk-v1": {"good": 0.35, "plain": 0.40, "wrong": 0.10, "rude": 0.15},
    "desk-v2": {"good": 0.50, "plain": 0.32, "wrong": 0.10, "rude": 0.08},
    "human": {"good": 0.65, "plain": 0.25, "wrong": 0.04, "rude": 0.06},
}

BROKEN = (
    '{"prompt": "Hi, this is Ada. My GlowLamp lamp bli',
    '{"prompt": "Hello, I am Leo.", "response": ""}',
    '{"prompt": "Hello, I am Zoe.", "response": "Hi Zoe, thanks.", "stars": NaN}',
    '{"prompt": "Hello, I am Ben.", "response": "Hi Ben, thanks.", "stars": 11}',
    '{"prompt": "Hello, I am Mina.", "response": "Hi Mina, thanks.", "thumbs": "sideways"}',
    '{"response": "We are sorry that your order is late."}',
    '["Hello", "Hi"]',
)


def write_sample_data(path: Path, num_rows: int | None, seed: int) -> dict[str, int]:
    """Write a feedback log as JSON lines, in constant memory, and count its lines and tickets.

    The folder of the file is created. Without a number of rows, all lines of 400 tickets are
    written. The same seed and size give the same bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = tickets = 0
    with path.open("w", encoding="utf-8") as file:
        while lines < num_rows if num_rows is not None else tickets < NUM_TICKETS:
            for line in _ticket_lines(random.Random(f"{seed}/{tickets}"), tickets):
                if lines == num_rows:
                    break
                file.write(line + "\n")
                lines += 1
            tickets += 1
    return {"lines": lines, "tickets": tickets}


def _ticket_lines(rng: random.Random, ticket: int) -> Iterator[str]:
    product = rng.choice(PRODUCTS)
    details = {
        "name": rng.choice(NAMES),
        "product": product,
        "other": rng.choice([other for other in PRODUCTS if other != product]),
        "fault": rng.choice(FAULTS),
    }
    prompt = _expand(rng, rng.choice(TICKETS), details)
    time = START + timedelta(minutes=17 * ticket)
    for _ in range(rng.randint(1, 8)):
        time += timedelta(seconds=rng.randint(20, 200))
        line = json.dumps(_row(rng, prompt, details, time), ensure_ascii=False)
        yield line
        if rng.random() < REPEATED_SHARE:
            yield line
        if rng.random() < BROKEN_SHARE:
            yield rng.choice(BROKEN)


def _row(
    rng: random.Random, prompt: str, details: dict[str, str], time: datetime
) -> dict[str, Any]:
    writer = rng.choice(list(WRITERS))
    kinds = [rng.choices(list(move), [WRITERS[writer][kind] for kind in move])[0] for move in MOVES]
    moves = [rng.choice(move[kind]) for move, kind in zip(MOVES, kinds, strict=True)]
    response = " ".join(_expand(rng, move, details) for move in moves)
    return {
        "prompt": prompt,
        "response": response,
        **_rating(rng, sum(WORTH[kind] for kind in kinds) / len(kinds)),
        "timestamp": time.isoformat(),
        "model_version": writer,
    }


def _rating(rng: random.Random, worth: float) -> dict[str, Any]:
    if rng.random() >= RATED_SHARE:
        return {}
    felt = worth + rng.gauss(0, 0.25)
    if rng.random() < 0.5:
        return {"thumbs": "up" if felt > 0.4 else "down"}
    return {"stars": min(5, max(1, round(3 + 2.2 * (felt - 0.2))))}


def _expand(rng: random.Random, template: str, details: dict[str, str]) -> str:
    """Fill ``{a|b}`` with a random choice and ``<name>`` with a detail."""
    chosen = re.sub(r"\{([^}]*)\}", lambda m: rng.choice(m[1].split("|")), template)
    return re.sub(r"<(\w+)>", lambda m: details[m[1]], chosen)
