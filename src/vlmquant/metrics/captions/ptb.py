r"""Words as the COCO caption scorers see them: Penn Treebank tokens in lower case, without punctuation.

Tokenisation decides caption scores: the same 4,982 captions have a CIDEr of 0.493 on Penn Treebank tokens and 0.342
when split at spaces. The reference is Stanford's Java PTBTokenizer 3.4.1 with `-preserveLines -lowerCase`, followed
by coco-caption's punctuation list. This is an independent implementation of what that program does, derived from its
output, quirks included: brackets stay as `-lrb-`, `?!` stays, `can't` becomes `ca n't`, `U.S.A.` keeps its dots. It is
meant for captions in English. Each text is tokenized on its own, where the original sees the next line as well: there
the dot after a last single letter (`plan B.`) depends on the caption that follows in the file.
"""

import re
import unicodedata

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


def _any(words: str) -> str:
    return f"(?:{'|'.join(words.split())})"


_FRACTIONS = {"\u00bd": "1/2", "\u00bc": "1/4", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3"}
_ALNUM = rf"[^\W_{''.join(_FRACTIONS)}]"
_LETTER = rf"[^\W\d_{''.join(_FRACTIONS)}]"
_APOSTROPHE = r"['\u2019\u0092]"
_PART = rf"(?:(?:[dDoOlL]{_APOSTROPHE}(?={_ALNUM}{{2}})|[A-HJ-XZn]{_APOSTROPHE}(?={_LETTER}{{2}}))?{_ALNUM}+)"
_WORD = rf"{_PART}(?:[-_]{_PART})*"
_INITIALS = r"[A-Za-z](?:\.[A-Za-z])+"
_AUXILIARY = rf"{_APOSTROPHE}(?:[msdMSD]|re|ve|ll|RE|VE|LL)(?!{_ALNUM})"
_NOT = r"[nN]['\u2019\u0092`][tT]"
_CAPITALIZED = _any(f"{CAPITALIZED_ABBREVIATIONS} {CAPITALIZED_ABBREVIATIONS.upper()}")
_ABBREVIATION = rf"(?:(?i:ph\.d|{_any(ABBREVIATIONS)})|{_any(LOWER_ABBREVIATIONS)}|{_CAPITALIZED})\."
_STARTER = _any(f"{SENTENCE_STARTERS} {SENTENCE_STARTERS.upper()}")
_URL_END = r"[^\s\"<>|(),.!?;:'{}\[\]-]"

# The longest match wins, context after the token included, and the first rule where two are as long: as in a scanner
# made by lex. Where a rule has groups, the group that took part is the token and the rest is context.
_RULES = tuple(
    re.compile(rule)
    for rule in (
        # Words.
        r"((?i:can))(?i:not)|((?i:gon|wan))(?i:na)|((?i:got))(?i:ta)|((?i:gim|lem))(?i:me)",
        _WORD,
        rf"({_ALNUM}+){_AUXILIARY}",
        rf"({_LETTER}+?){_NOT}",
        rf"[A-Za-z0-9][A-Za-z0-9.,]*(?:-(?:{_INITIALS}\.?|[A-Za-z0-9]+))+",
        rf"{_LETTER}{_ALNUM}*(?:\.{_LETTER}{_ALNUM}*)+",
        r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}",
        r"[A-Z]+(?:[+&][A-Z]+)+|[A-Za-z]\+\+",
        # What begins or ends with an apostrophe.
        _NOT,
        _AUXILIARY,
        rf"({_APOSTROPHE}[tT])(?i:is|was)",
        rf"{_APOSTROPHE}(?:(?i:em|till?|cause)|[nN](?:{_APOSTROPHE}|(?!{_ALNUM})))",
        rf"{_APOSTROPHE}(?:[2-9]0[sS]?(?!{_ALNUM})|\d\d(?=\s|$))",
        rf"[lLdDjJyY]{_APOSTROPHE}(?={_ALNUM})|(?i:dunkin|somethin|ol){_APOSTROPHE}",
        rf"[cC]{_APOSTROPHE}mon|(?i:ma{_APOSTROPHE}am)",
        # Words that end with a full stop.
        _ABBREVIATION,
        rf"[A-Za-z]\.(?!\s+{_STARTER}(?:\s|$))",
        rf"{_INITIALS}\.?",
        rf"((?i:{_any(NUMBERED_ABBREVIATIONS)})\.)\s*\d",
        rf"({_ALNUM}+\.)[,;:]",
        # Numbers, fractions, dates, telephones, money.
        r"[-+]?(?:\d*(?:[.:,]\d+)+|\d+)",
        r"(?:\d{1,4}[- \u00a0])?\d{1,4}/\d{1,4}",
        r"\d{1,2}[-/]\d{1,2}[-/]\d{2,4}",
        r"(?:\(\d{2,3}\)[ \u00a0]?|(?:\+{0,2}\d{2,4}[- \u00a0])?\d{2,4}[-/. \u00a0])\d{3,4}[-/. \u00a0]?\d{3,5}",
        r"[A-Z]{1,3}\$",
        # Addresses, tags, smileys.
        rf"(?i:https?://)[^\s\"<>|()]+{_URL_END}|(?i:www\.)[^\s\"<>|()]*{_URL_END}",
        r"(?:[A-Za-z0-9-]+\.)+(?:com|net|org|edu)(?:/[^\s\"<>|.!?(){},]+)*",
        r"[A-Za-z0-9][\w.%+-]*@[A-Za-z0-9](?:[\w-]|\.(?=[\w-]))*|@[A-Za-z_]\w*|#[A-Za-z]+",
        r"</?[A-Za-z]\w*(?:\s+\w+=(?:\"[^\"<>]*\"|'[^'<>]*')|\s+[A-Za-z]\w*)*\s*/?>|<![^<>]*>",
        r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]](?![A-Za-z])|\^_\^|-_-",
        r"&(?:amp|lt|gt|quot|apos|nbsp);",
        # Everything else.
        r"\.(?:[ \u00a0]?\.){2,}|[?!]{2,}|-{2,}|\*{2,}|_{2,}|''|``",
        r"\S",
    )
)

_PLAIN_WORD = re.compile(r"[A-Za-z]+(?=\s|$)")
_SPLIT_WORDS = frozenset(["cannot", "gonna", "gotta", "wanna", "lemme", "gimme"])
_DROPPED = re.compile(
    r"[.\u2026\s]+|-{1,4}|[?!,:;'\"`\u2010-\u2015\u2018\u2019\u201c\u201d\u0091-\u0097\u00ab\u00bb\u2039\u203a]"
    r"|''|``|&(?:quot|apos|nbsp);"
)
"""coco-caption's list, before Stanford's writing: all kinds of quotes, dashes and dots. Its brackets never match."""
_REWRITTEN = _FRACTIONS | {
    "\u00a3": "#",
    "\u20ac": "$",
    "\u00a2": "cents",
    "&amp;": "&",
    "&lt;": "<",
    "&gt;": ">",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
}
_CHARACTERS = str.maketrans({"(": "-lrb-", ")": "-rrb-", " ": "\u00a0", "\u2019": "'", "\u0092": "'"})
_UNKNOWN_CATEGORIES = ("Mn", "Cf", "Cs", "Cn")


def tokenize(text: str) -> str:
    """Return the tokens of one caption in lower case, separated by single spaces; an empty text when there are none.

    A token never holds a space, but a telephone number, a mixed fraction or a tag may hold a no-break space.
    """
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
    """Return the token that starts at `position`, empty if it is dropped, and where it ends."""
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
    if _DROPPED.fullmatch(token) or (len(token) == 1 and _is_unknown(token)):
        return ""
    return _REWRITTEN.get(token) or token.translate(_CHARACTERS).lower()


def _is_unknown(character: str) -> bool:
    """Say whether the original drops the character: emoji beyond the 16-bit plane, invisible marks."""
    return ord(character) > 0xFFFF or unicodedata.category(character) in _UNKNOWN_CATEGORIES
