"""Who the teacher is: from the roster, from what was configured, or from what the teacher says.

Comes in: what is known of the people of a meeting, and an utterance. Goes out: a name and where it
is from. English self-introductions only: "my name is", "I am", "I'm".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from edge.meeting.records import IdentitySource, Person, Value

UNNAMED = "teacher"
MOST_WORDS = 4
_LETTER = r"[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]"
_WORD = re.compile(
    rf"[ \t]+(?P<word>{_LETTER}(?:{_LETTER}|['\u2019-](?={_LETTER}))*)"
    rf"(?P<dot>\.(?=[ \t]+{_LETTER}))?"
)
_INTRODUCTIONS = (
    (re.compile(r"(?<!\w)my[ \t]+name[ \t]+is(?=[ \t])", re.IGNORECASE), False),
    (re.compile(r"(?<!\w)i[ \t]+am(?=[ \t])", re.IGNORECASE), True),
    (re.compile(r"(?<!\w)i['\u2019]m(?=[ \t])", re.IGNORECASE), True),
)
"""What goes before a name, and whether something else may follow as well ("I am tired")."""
_MIN_CHARS, _MAX_CHARS = 2, 80
_TITLES = frozenset(("dr", "mr", "mrs", "ms", "prof", "st", "jr", "sr"))
_PARTICLES = frozenset(("al", "bin", "da", "de", "del", "der", "di", "la", "van", "von"))
"""No name of several words ends with one."""


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


_NEVER = _listed("""
    a about after again all also although an and any are as at be because been before but by called
    can could did do does for from had has have he her here him his how i i'm if in into is it it's
    its just like me my near no nor not now of off on only onto or our out over please pronounced
    she since so some spelled spelt than that that's the their them then there these they this those
    though through to today tomorrow tonight too under until up us very was we were what what's when
    where which while who whose why with within without would yes yesterday yet you your
    """)
"""Words that end a name, or that no name begins with."""
_SELDOM = _listed("""
    able absolutely active actually afraid against alive almost alone already alright always amazed
    angry another anxious around ashamed asleep available awake aware away back bad based better
    between big bit blessed blind bored born both bound brand brave broke busy calm careful certain
    certainly chief clear clearly close cold comfortable completely concerned confident confused
    content cool crazy curious currently dead deaf deeply definitely delighted desperate different
    doing done down drunk dying eager early easy either embarrassed employed engaged enough entirely
    equally even ever exactly excited exhausted expecting experienced extremely fairly familiar
    famous far finally fine first fluent fond fortunate free fresh full fully further generally
    genuinely getting given glad going gone gonna good grateful great guilty half happy hard hardly
    head healthy honest honestly honored honoured hopeful hoping hungry ill impressed incredibly
    indeed independent inside interested jealous junior keen kind kinda last late later lead left
    less literally little local lonely long looking lost lucky mad mainly married maybe mean merely
    mine more most mostly much naturally nearly nervous never new next nice nobody normally nothing
    number obviously often ok okay old once one open originally otherwise ours outside overwhelmed
    part particularly passionate perfect perfectly perhaps personally pleased poor positive possibly
    pregnant prepared presently pretty primarily probably proud quick quiet quite rarely rather
    ready real really recently relatively relieved responsible retired right sad safe satisfied
    scared self senior serious seriously shocked short shy sick significantly simply single sleepy
    slightly slow small sometimes somewhat soon sorry sort stable still strong strongly struggling
    stuck stupid such super supposed sure surprised tall terrible terribly terrified thankful third
    thirsty tired together told torn totally touched tough trained tremendously true truly twice two
    unable uncertain unemployed unhappy unsure upset used usually utterly vice wanna warm weak weird
    welcome well wet whole wide wild willing wondering worried worse worth wrong
    """)
"""Words that say how one is, not who."""
_ACTING = re.compile(r"[a-z]{3,}(?:ing|ed)")
"""Written small: "I'm studying", "I am employed"."""
_NAMES_IN_ED = _listed("ahmed mohamed mohammed muhammed hamed saeed waheed alfred wilfred")


def extract_name(text: str) -> str | None:
    """The name with which a speaker introduces herself; None when there is none.

    It ends at punctuation and at words that are in no name. Of several introductions "my name is"
    counts before "I am", and that before "I'm".
    """
    for introduction, may_be_else in _INTRODUCTIONS:
        for match in introduction.finditer(text):
            name = _name_at(text, match.end(), may_be_else)
            if name is not None:
                return name
    return None


def teacher_identity(
    roster: Sequence[Person], config: Mapping[str, Value], text: str
) -> tuple[str, IdentitySource]:
    """The teacher's name, and where it is from; ``text`` is what the teacher has just said.

    That the roster has one entry says nothing: it may list candidates.
    """
    configured = [
        name.strip()
        for key in ("teams_interviewer_name", "interviewer_name")
        if isinstance(name := config.get(key), str) and name.strip()
    ]
    for name in configured:
        for person in roster:
            if person.name.strip().casefold() == name.casefold():
                return person.name, "teams_participants"
    if configured:
        return configured[0], "preconfig"
    said = extract_name(text)
    return (said, "name_extract") if said else (UNNAMED, "teacher")


def _name_at(text: str, at: int, may_be_else: bool) -> str | None:
    words: list[str] = []
    while len(words) < MOST_WORDS and (match := _WORD.match(text, at)):
        word = match["word"]
        plain = word.replace("\u2019", "'").lower()
        if plain in _NEVER or (may_be_else and not words and _is_state(word, plain)):
            break
        is_short_form = match["dot"] and (len(word) == 1 or plain in _TITLES)
        words.append(f"{word}." if is_short_form else word)
        at = match.end()
        if match["dot"] and not is_short_form:
            break
    while len(words) > 1 and words[-1].lower() in _PARTICLES:
        words.pop()
    name = " ".join(words)
    return name if _MIN_CHARS <= len(name) <= _MAX_CHARS else None


def _is_state(word: str, plain: str) -> bool:
    if plain in _SELDOM:
        return True
    return bool(_ACTING.fullmatch(word)) and plain not in _NAMES_IN_ED
