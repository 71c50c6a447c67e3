r"""Words as the COCO caption scorers see them: Penn Treebank tokens in lower case, without punctuation.

Tokenisation decides caption scores: the same 4,982 captions have a CIDEr of 0.493 on Penn Treebank tokens and 0.342
when split at spaces. The reference is Stanford's Java PTBTokenizer 3.4.1 with `-preserveLines -lowerCase`, followed
by coco-caption's punctuation list. This is an independent implementation of what that program does, derived from its
output, quirks included: brackets stay as `-lrb-`, `?!` stays, `can't` becomes `ca n't`, `U.S.A.` keeps its dots.
"""

import re

PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
"""coco-caption's list as it acts: its `-LRB-` to `-RCB-` never match, because the tokens are in lower case."""

ABBREVIATIONS = (
    "adj adm adv al ala alex apr ariz assn assoc asst atty aug ave bancorp bhd bldg blvd brig bros calif capt cf cie"
    " cmdr co col colo conn corp cos cpl ct dak dec dept det dr drs elec esq est etc ext feb fla fri ft ga gen gov govs"
    " hon inc ind insp intl jan jos jr jul jun kan kans ky lt ltd maj mar md messrs mich minn mlle mme mo mon mont mr"
    " mrs ms msgr mt natl neb nev nov oct okla penn pfc ph plc pres prof profs pvt rd rep reps rev rt sen sens sep sept"
    " seq sgt sq sr st ste supt sys tel tenn thu thurs treas tue tues univ va vs vt wed wis wisc wm wyo"
)
"""Keep their full stop anywhere and in any case."""
CAPITALIZED_ABBREVIATIONS = "Ark Del Ill La Mass Miss Ore Pa Tex Wash"
"""Words of their own in lower case, so abbreviations only when they begin with a capital."""
LOWER_ABBREVIATIONS = "mfg Mfg pty Pty"
"""Abbreviations that are not written in capitals."""
NUMBERED_ABBREVIATIONS = "art ca fig figs no nos op pp prop"
"""Keep their full stop only before a number, as in `no. 5`."""


SENTENCE_STARTERS = (
    "A About According After An As At But He Her Here However If In It Last Many More Now Once One Other Our She Since"
    " So Some Such That The Their Then There These They This We What When While Yet You"
)
"""Before one of these, the full stop after a single letter ends a sentence: `plan B. The`, against `B. Smith`."""

_SPLIT_WORDS = {"cannot": 3, "gonna": 3, "gotta": 3, "wanna": 3, "lemme": 3, "gimme": 3}
"""Words that are two tokens, with the length of the first."""


def _any(words: str) -> str:
    return "(?:" + "|".join(words.split()) + ")"


_L = r"[^\W_]"
_LETTER = r"[^\W\d_]"
_APOSTROPHE = r"['\u2019\u0092]"
_NUMBER = r"(?:\d*(?:[.:,]\d+)+|\d+)"
_PART = rf"(?:(?:[dDoOlL]{_APOSTROPHE}(?={_L})|[A-HJ-XZn]{_APOSTROPHE}(?={_LETTER}{{2}}))?{_L}+)"
_WORD = rf"{_PART}(?:[-_]{_PART})*"
_AUXILIARY = rf"{_APOSTROPHE}(?:[msdMSD]|re|ve|ll|RE|VE|LL)(?!{_L})"
_NOT = rf"[nN]{_APOSTROPHE}[tT]"
_CAPITALIZED = _any(CAPITALIZED_ABBREVIATIONS + " " + CAPITALIZED_ABBREVIATIONS.upper())
_ABBREVIATION = rf"(?:(?i:{_any(ABBREVIATIONS)})|{_any(LOWER_ABBREVIATIONS)}|{_CAPITALIZED})\."
_STARTER = _any(SENTENCE_STARTERS + " " + SENTENCE_STARTERS.upper())
_URL_END = r"[^\s\"<>|(),.!?;:'{}\[\]-]"

# As in the original, the longest match wins, context after the token included, and the first rule on a tie. Where the
# rule has a group, the group is the token and the rest is context.
_RULES = tuple(
    re.compile(rule)
    for rule in (
        r"((?i:can))(?i:not)",
        r"((?i:gon|wan))(?i:na)|((?i:got))(?i:ta)|((?i:gim|lem))(?i:me)",
        _WORD,
        rf"({_L}+){_AUXILIARY}",
        rf"({_LETTER}+?){_NOT}",
        _NOT,
        _AUXILIARY,
        rf"({_APOSTROPHE}[tT])(?i:is|was)",
        rf"{_APOSTROPHE}(?:(?i:em|till?|cause)|[nN](?:{_APOSTROPHE}(?!{_L}))?|[2-9]0s?)(?!{_L})",
        rf"[lLdDjJyY]{_APOSTROPHE}(?={_L})|(?i:dunkin|somethin|ol){_APOSTROPHE}|[cC]{_APOSTROPHE}mon",
        rf"(?i:ma{_APOSTROPHE}am)",
        rf"[-+]?{_NUMBER}",
        rf"{_NUMBER}(?:-{_PART})*",
        r"(?:\d{1,4}[- \u00a0])?\d{1,4}/\d{1,4}",
        r"\d{1,2}[-/]\d{1,2}[-/]\d{2,4}",
        rf"{_ABBREVIATION}(?:-{_PART})*",
        rf"[A-Za-z]\.(?!\s+{_STARTER}(?:\s|$))(?:-{_PART})*",
        rf"((?i:{_any(NUMBERED_ABBREVIATIONS)})\.)\s*\d",
        rf"({_L}+\.)\s*[,;:]",
        rf"[A-Za-z](?:\.[A-Za-z])+\.?(?:-{_PART})*",
        r"(?i:ph\.d)\.(?:-{_PART})*",
        rf"{_LETTER}{_L}*(?:\.{_LETTER}{_L}*)+(?:-{_PART})*",
        r"[A-Z]+(?:[+&][A-Z]+)+|[A-Za-z]\+\+",
        r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}",
        rf"(?i:https?://)[^\s\"<>|()]+{_URL_END}",
        rf"(?i:www\.)[^\s\"<>|()]*{_URL_END}",
        r"(?:[A-Za-z0-9-]+\.)+(?:com|net|org|edu)(?:/[^\s\"<>|.!?(){},]+)*",
        r"[A-Za-z0-9][\w.%+-]*@[A-Za-z0-9](?:[\w-]|\.(?=[\w-]))*",
        r"@[A-Za-z_]\w*|#[A-Za-z]+",
        r"<(?:/?[A-Za-z]\w*(?:\s+\w+=(?:\"[^\"<>]*\"|'[^'<>]*'|\w+))*\s*/?|/?\w+(?:\s+\w+)?\s*|![^<>]*)>",
        r"[<>]?[:;=][-o*']?[()DPdpO\\:{@|\[\]](?![A-Za-z])",
        r"[A-Za-z]{1,3}\$",
        r"\.(?:[ \u00a0]?\.){2,}|[?!]{2,}|-{2,}|\*{2,}|_{2,}",
        r"&(?:amp|lt|gt|quot|apos|nbsp);",
        r"\S",
    )
)
_PLAIN_WORD = re.compile(r"[A-Za-z]+(?=\s|$)")
_WRITTEN = {
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
    "\u00a3": "#",
    "\u20ac": "$",
    "\u00a2": "cents",
    "\u00bd": "1/2",
    "\u00bc": "1/4",
    "\u00be": "3/4",
    "\u2153": "1/3",
    "\u2154": "2/3",
    "&amp;": "&",
    "&lt;": "<",
    "&gt;": ">",
}
_BRACKETS = str.maketrans({k: v for k, v in _WRITTEN.items() if k in "()[]{}"})
_DROPPED = set('"\u201c\u201d\u2018\u2019\u0091\u0092\u0093\u0094\u00ab\u00bb\u2039\u203a\u2013\u2014\u2026`\'.?!,:;-')


def tokenize(text: str) -> str:
    """Return the lower-case tokens of one caption; [] when there are none."""
    tokens = []
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        token, position = _next_token(text, position)
        if token:
            tokens.append(token)
    return " ".join(tokens)


def _next_token(text: str, position: int) -> tuple[str, int]:
    plain = _PLAIN_WORD.match(text, position)
    if plain:
        word = plain[0].lower()
        if word not in _SPLIT_WORDS:
            return word, plain.end()
    matches = (match for rule in _RULES if (match := rule.match(text, position)))
    longest = max(matches, key=re.Match.end)
    end = longest.end(longest.lastindex or 0)
    return _write(text[position:end]), end


def _write(token: str) -> str:
    if token in _DROPPED or not token.strip(".-  ") and (len(token) < 5 or token[0] == ".") or token in("''","``","&quot;","&nbsp;","&apos;"):
        return ""
    if len(token) == 1 and ord(token) > 0xFFFF: return ""
    return _WRITTEN.get(token) or token.translate(_BRACKETS).lower().replace(" ", "\u00a0")
