r"""Words as the COCO caption scorers see them: Penn Treebank tokens in lower case, without punctuation.

Tokenisation decides caption scores: the same 4,982 captions have a CIDEr of 0.493 on Penn Treebank tokens and 0.342
when split at spaces. The reference is Stanford's Java PTBTokenizer 3.4.1 with `-preserveLines -lowerCase`, followed
by coco-caption's punctuation list. This is an independent implementation of what that program does, derived from its
output, quirks included: brackets stay as `-lrb-`, `?!` stays, `can't` becomes `ca n't`, `U.S.A.` keeps its dots. It is
meant for captions in English. HTML entities are a mix of both, as there: `dog&apos;s` is `dog 's`, `O&apos;Brien` stays
as it is, and `&foo;` falls apart. Each text is tokenized on its own, where the original sees the next line as well:
there the dot after a last single letter (`plan B.`) depends on the caption that follows in the file.
"""

import re
import unicodedata

ENDING_ABBREVIATIONS = (
    "al ala apr ariz assn aug bancorp bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext"
    " feb fla fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct"
    " okla penn plc rd rt sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo"
)
"""Keep their full stop anywhere and in any case, and may end a sentence: a single letter behind is another word."""
TITLE_ABBREVIATIONS = (
    "adj adm adv alex assoc asst atty ave brig capt cf cie cmdr col cpl dept det dr drs elec ft gen gov govs"
    " hon insp jos lt maj messrs mlle mme mr mrs ms msgr mt natl pfc ph pres prof profs pvt rep reps rev sen"
    " sens sgt st ste supt treas vs wm"
)
"""Keep their full stop and a letter that touches it: `Mr.X`."""
CAPITALIZED_ABBREVIATIONS = "Ark Del Ill La Mass Miss Ore Pa Tex Wash"
"""Words of their own in lower case, so abbreviations only when they begin with a capital."""
NUMBERED_ABBREVIATIONS = "art ca fig figs no nos op pp prop"
"""Keep their full stop only before a number, as in `no. 5`."""


SENTENCE_STARTERS = (
    "A About According After An As At But He Her Here However If In It Last Many More Mr. Ms. Now Once One Other Our"
    " She Since So Some Such That The Their Then There These They This We What When While Yet You"
)
"""Before one of these, the full stop after a single letter ends a sentence: `plan B. The`, against `B. Smith`."""


def _any(words: str) -> str:
    return f"(?:{'|'.join(words.split())})"


_FRACTIONS = {"\u00bd": "1/2", "\u00bc": "1/4", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3"}
_ALNUM = rf"[^\W_{''.join(_FRACTIONS)}]"
_LETTER = rf"[^\W\d_{''.join(_FRACTIONS)}]"
# HTML entities take part in words: `&apos;` is an apostrophe almost everywhere, `&eacute;` a letter in plain words.
_APOSTROPHE = r"(?:['\u2019\u0092]|&(?i:apos);)"
_INNER = rf"(?:{_APOSTROPHE}|[`\u2018\u201b])"
_ACCENTED = r"&(?i:[aeiou](?:acute|grave|uml));"
_PART = rf"(?:(?:[dDoOlL]{_INNER}(?={_ALNUM}{{2}}))?{_ALNUM}+)"
_WORD = rf"{_PART}(?:[-_]{_PART})*"
_PLAIN = rf"(?:{_LETTER}|{_ACCENTED})(?:{_ALNUM}|{_ACCENTED})*"
_JOINED = rf"{_PLAIN}(?:[.!?]{_PLAIN})*"
_INITIALS = r"[A-Za-z](?:\.[A-Za-z])+"
_HYPHENATED = rf"[A-Za-z0-9][A-Za-z0-9.,]*(?:-(?:{_INITIALS}\.?|[A-Za-z0-9]+))+"
_COMPANY = r"[A-Z]+(?:(?:&(?i:amp);|[+&])[A-Z]+)+"
_AUXILIARY = rf"{_APOSTROPHE}(?:[msdMSD]|re|ve|ll|RE|VE|LL)"
_NOT = rf"[nN](?:{_APOSTROPHE}|`)[tT]"
_CAPITALIZED = _any(f"{CAPITALIZED_ABBREVIATIONS} {CAPITALIZED_ABBREVIATIONS.upper()}")
_ENDING = rf"(?:(?i:ph\.d|{_any(ENDING_ABBREVIATIONS)})|[pP]ty|{_CAPITALIZED})\."
_TITLE = rf"(?:(?i:{_any(TITLE_ABBREVIATIONS)})|[mM]fg)\."
_STARTER = "|".join(map(re.escape, f"{SENTENCE_STARTERS} {SENTENCE_STARTERS.upper()}".split()))
_MAIL = r"[^\s\"<>|(){}]"
_QUOTES = r"[`\u2018\u2019\u201c\u201d]{2}"

# The longest match wins, context after the token included, and the first rule where two are as long: as in a scanner
# made by lex. Where a rule has groups, the group that took part is the token and the rest is context.
_RULES = tuple(
    re.compile(rule)
    for rule in (
        # Words.
        r"((?i:can))(?i:not)|((?i:gon|wan))(?i:na)|((?i:got))(?i:ta)|((?i:gim|lem))(?i:me)",
        rf"({_ALNUM}+|{_JOINED}){_AUXILIARY}",
        _WORD,
        rf"([A-Za-z]+?){_NOT}",
        _JOINED,
        rf"({_ENDING})(?s:..)",
        _HYPHENATED,
        r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}",
        rf"{_COMPANY}|[A-Za-z]\+\+|[CcFf]#",
        # What begins, ends or holds an apostrophe.
        _NOT,
        rf"({_AUXILIARY})[^A-Za-z]",
        r"('[tT])(?i:is|was)",
        rf"{_APOSTROPHE}(?:(?i:em|till?|cause)|[nN]{_APOSTROPHE}?)",
        r"(')[A-Za-z]\S",
        _AUXILIARY,
        rf"{_APOSTROPHE}(?:[2-9]0[sS]|\d\d(?=\s|$))",
        rf"[lLdDjJ]{_APOSTROPHE}|[yY]{_APOSTROPHE}(?={_LETTER})|(?i:dunkin|somethin|ol){_APOSTROPHE}",
        rf"[A-HJ-XZn]{_INNER}{_LETTER}{{2,}}|{_LETTER}+[aeiouyAEIOUY]{_INNER}[aeiouA-Z]{_LETTER}*",
        r"(?i:c'mon|nor'easter|e'er|s'mores|ev'ry|li'l|nat'l)",
        # Words that end with a full stop.
        rf"{_ENDING}|{_TITLE}",
        rf"[A-Za-z]\.(?!\s+(?:{_STARTER})(?:\s|$))",
        rf"{_INITIALS}\.?",
        rf"((?i:{_any(NUMBERED_ABBREVIATIONS)})\.)\s*\d",
        rf"((?:{_WORD}|{_JOINED}|{_HYPHENATED}|{_COMPANY})\.)[,;:]",
        # Numbers, fractions, dates, telephones, money.
        r"[-+]?(?:\d*(?:[.:,]\d+)+|\d+)",
        r"(?:\d{1,4}[- \u00a0])?\d{1,4}/\d{1,4}",
        r"\d{1,2}[-/]\d{1,2}[-/]\d{2,4}",
        r"(?:\(\d{2,3}\)[ \u00a0]?|(?:\+{0,2}\d{2,4}[- \u00a0])?\d{2,4}[-/. \u00a0])\d{3,4}[-/. \u00a0]?\d{3,5}",
        r"[A-Z]+\$",
        # Addresses, tags, smileys.
        r"(?i:https?://)[^\s\"<>|()]+[^\s\"<>|(),.!?{}-]",
        r"(?:[A-Za-z0-9-]+\.)+(?:com|net|org|edu)(?:/[^\s\"<>|()]+[^\s\"<>|(),.!?{}-])?",
        rf"(?:<|&(?i:lt);)?[A-Za-z0-9]{_MAIL}*@(?:[^\s\"<>|(){{}}.]+\.)*[^\s\"<>|(){{}}.]+>?",
        rf"@[A-Za-z_][A-Za-z0-9_]*|#(?:{_LETTER}|{_ACCENTED})+",
        r"</?[A-Za-z]\w*(?:\s+\w+=(?:\"[^\"<>]*\"|'[^'<>]*')|\s+[A-Za-z]\w*)*\s*/?>|<![^<>]*>",
        r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]](?![A-Za-z0-9])|\^_\^|-_-",
        r"&(?:#\d+|(?i:amp|lt|gt|quot|apos|nbsp|md|mdash|ndash|ht|tl|ur|lr|qc|ql|qr|odq|cdq));",
        # Everything else.
        rf"\.(?:[ \u00a0]?\.){{2,}}|[?!]{{2,}}|-{{2,}}|\\\*|\*{{2,}}|_{{2,}}|#{{2,}}|@{{2,}}|<<|>>|''|{_QUOTES}",
        r"\S",
    )
)

_PLAIN_WORD = re.compile(r"[A-Za-z]+(?=\s|$)")
_SPLIT_WORDS = frozenset(["cannot", "gonna", "gotta", "wanna", "lemme", "gimme"])
_DROPPED = re.compile(
    r"[.\u2026\s]+|-{1,4}|[?!,:;'\"`\u2010-\u2015\u2018\u2019\u201c\u201d\u0091-\u0097\u00ab\u00bb\u2039\u203a]"
    r"|''|[`\u2018]{2}|\u2019{2}|&(?:quot|apos);|&(?i:nbsp|md|mdash|ndash);"
)
"""coco-caption's list, before Stanford's writing: all kinds of quotes, dashes and dots. Its brackets never match."""
_REWRITTEN = _FRACTIONS | {
    "\u00a3": "#",
    "\u20ac": "$",
    "\u00a2": "cents",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
}
_CHARACTERS = str.maketrans({"(": "-lrb-", ")": "-rrb-", " ": "\u00a0"})
_QUOTE_CHARACTERS = str.maketrans({"\u2018": "`", "\u2019": "'", "\u0092": "'", "\u201c": "``", "\u201d": "''"})
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&apos;": "'"}
_ENTITY = re.compile("&(?i:amp|lt|gt);|&apos;")
_DECODED = re.compile(rf"&(?i:amp|lt|gt);|{_COMPANY}\.?|{_NOT}|{_AUXILIARY}|{_QUOTES}")
"""Tokens whose entities and quotes are written as plain characters; elsewhere, as in `O&apos;Brien`, they stay."""
_UNKNOWN_CATEGORIES = ("Mn", "Cf", "Cs", "Cn")


def tokenize(text: str) -> str:
    """Return the tokens of one caption in lower case, separated by single spaces; an empty text when there are none.

    A token never holds a space, but a telephone number, a mixed fraction or a tag may hold a no-break space.
    """
    text += "\n"  # Some rules look at what follows the last word: in the original, the end of the line.
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
    if _DECODED.fullmatch(token):
        token = _ENTITY.sub(lambda entity: _ENTITIES[entity[0].lower()], token).translate(_QUOTE_CHARACTERS)
    return _REWRITTEN.get(token) or token.translate(_CHARACTERS).lower()


def _is_unknown(character: str) -> bool:
    """Say whether the original drops the character: emoji beyond the 16-bit plane, invisible marks."""
    return ord(character) > 0xFFFF or unicodedata.category(character) in _UNKNOWN_CATEGORIES
