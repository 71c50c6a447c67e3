import json
from pathlib import Path

import pytest

from vlmquant.metrics.captions.ptb import tokenize


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A man rides a wave.", "a man rides a wave"),
        ("", ""),
        (" \t\n ", ""),
        ("...", ""),
        ("can't won't isn't they've", "ca n't wo n't is n't they 've"),
        ("a dog\u2019s \u201ctoy\u201d", "a dog 's toy"),
        ("cannot gonna Gotta", "can not gon na got ta"),
        ("cannot.", "can not"),
        ("gonna's", "gonna 's"),
        ("the boys' dog", "the boys dog"),
        ("(blue) [red] {x}", "-lrb- blue -rrb- -lsb- red -rsb- -lcb- x -rcb-"),
        ("stop! what?! no?", "stop what ?! no"),
        ("a T-shirt -- red - and blue", "a t-shirt red and blue"),
        ("U.S.A. T.V t.v. ex-U.S.", "u.s.a. t.v t.v. ex-u.s."),
        ("St. Mary vs. Mr. Smith etc.", "st. mary vs. mr. smith etc."),
        ("in Mass. there is mass.", "in mass. there is mass"),
        ("no. 5, no. thanks", "no. 5 no thanks"),
        ("plan B. Smith, plan B. The end", "plan b. smith plan b the end"),
        ("a dog., a cat", "a dog. a cat"),
        ("$5.50, 20% off 1,000 at 10:30am", "$ 5.50 20 % off 1,000 at 10:30 am"),
        ("5'10\" tall in the '70s", "5 10 tall in the '70s"),
        ("½ cup £5 5¢", "1/2 cup # 5 5 cents"),
        ("AT&T and m&m", "at&t and m & m"),
        ("see www.a.com, a@b.com or http://x.org/y.", "see www.a.com a@b.com or http://x.org/y"),
        ("end.The and/or a_b", "end.the and/or a_b"),
        ("rock 'n' roll, 'em o'clock O'Brien", "rock 'n' roll 'em o'clock o'brien"),
        ("1/2 1 1/2", "1/2 1\u00a01/2"),
        ("a cat \U0001f600 \u2665", "a cat \u2665"),
        ("&amp; a &lt; b", "& a < b"),
    ],
)
def test_tokens_are_those_of_the_java_tokenizer(text: str, tokens: str) -> None:
    assert tokenize(text) == tokens


# The next two tables are outputs of the real tokenizer, of pycocoevalcap 1.2: each caption on a line of `captions.txt`,
# followed by the line `dogs`, through
#   java -cp stanford-corenlp-3.4.1.jar edu.stanford.nlp.process.PTBTokenizer -preserveLines -lowerCase captions.txt
# and without the tokens in `PUNCTUATIONS` of pycocoevalcap/tokenizer/ptbtokenizer.py.
@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("salt &amp; pepper", "salt & pepper"),
        ("salt&amp;pepper on a plate", "salt & pepper on a plate"),
        ("&amp;a dog&amp; a&AMP;b", "& a dog & a & b"),
        ("AT&amp;T and R&AMP;B, m&amp;m", "at&t and r&b m & m"),
        ("AT&amp;T's van, AT&amp;T., a cat", "at&t 's van at&t. a cat"),
        ("2&lt;3 and 5&gt;4", "2 < 3 and 5 > 4"),
        ("&lt;b&gt;red&lt;/b&gt; &LT;", "< b > red < / b > <"),
        ("a&quot;red&quot;dog &quot;runs&quot;.", "a red dog runs"),
        ("a 5&quot; and 6&apos;2&quot; man", "a 5 and 6 2 man"),
        ("dog&apos;s toy, dogs&apos; toys", "dog 's toy dogs toys"),
        ("I&apos;m we&apos;ll they&apos;ve DOG&apos;S", "i 'm we 'll they 've dog 's"),
        ("don&apos;t can&apos;t ISN&apos;T.", "do n't ca n't is n't"),
        ("don&APOS;t I&APOS;m", "do n&apos;t i &apos;m"),
        ("O&apos;Brien o&apos;clock l&apos;eau", "o&apos;brien o&apos;clock l&apos;eau"),
        ("y&apos;all ma&apos;am c&apos;mon", "y&apos; all ma&apos;am c 'm on"),
        ("rock &apos;n&apos; roll, get &apos;em", "rock &apos;n&apos; roll get &apos;em"),
        ("the &apos;70s, &apos;tis", "the &apos;70s tis"),
        ("&apos;red&apos; dog &apos;", "'re d&apos; dog"),
        ("&apos;&apos; &quot;&quot; &apos;.", ""),
        ("a&nbsp;dog &nbsp; runs&nbsp;&amp;&nbsp;sits", "a dog runs & sits"),
        ("&nbsp;&quot;a dog&quot;&nbsp;", "a dog"),
        ("dog&#39;s don&#39;t &#39;", "dog &#39; s don &#39; t &#39;"),
        ("&#8217;a&#233;b &#34;red&#34;", "&#8217; a &#233; b &#34; red &#34;"),
        ("dog&#x27;s &#x27;", "dog & #x 27 s & #x 27"),
        ("caf&eacute; CAF&EACUTE;S &eacute;tude", "caf&eacute; caf&eacute;s &eacute;tude"),
        ("caf&eacute;&apos;s caf&eacute;.The", "caf&eacute; 's caf&eacute;.the"),
        ("&uuml;ber-cool na&iuml;ve-ish 1&eacute;", "&uuml;ber cool na&iuml;ve ish 1 &eacute;"),
        ("d&eacute;j&agrave; vu&egrave;., a cat", "d&eacute;j&agrave; vu&egrave;. a cat"),
        ("fran&ccedil;ais ma&ntilde;ana", "fran & ccedil ais ma & ntilde ana"),
        ("a&mdash;b a &ndash; b a-&MD;", "a b a b a"),
        ("&ldquo;hi&rdquo; x&hellip;", "& ldquo hi & rdquo x & hellip"),
        ("&copy; 2010 &frac12; cup", "& copy 2010 & frac12 cup"),
        ("&foo; a&foo;b &;", "& foo a & foo b &"),
        ("AT&amp a&amp b &lt &quot", "at & amp a & amp b & lt & quot"),
        ("caf&eacute dog&nbsp", "caf & eacute dog & nbsp"),
        ("a&amp;amp;b &amp;quot; &amp;#39;s", "a & amp b & quot & # 39 s"),
        ("&lt;a@b.com&gt; a&amp;b@c.com", "&lt;a@b.com&gt; a&amp;b@c.com"),
        ("see http://x.org?a=1&amp;b=2 &quot;", "see http://x.org?a=1&amp;b=2"),
        ("&lt;3 &gt;:( &lt;:)", "< 3 > :-lrb- < :-rrb-"),
        ("(&quot;red&quot;) [&amp;] T-&amp;shirt", "-lrb- red -rrb- -lsb- & -rsb- t & shirt"),
        ("&amp;, &amp;. &amp;! &quot;?", "& & &"),
        ("1&amp;2 3.5&quot;x4&quot; $5&amp;up", "1 & 2 3.5 x4 $ 5 & up"),
        ("Jr.&apos;s no. &amp; B. &amp; p.m.&quot;", "jr. 's no & b. & p.m."),
        ("A DOG&amp;CAT, A&amp;B&amp;C", "a dog&cat a&b&c"),
    ],
)
def test_html_entities_are_those_of_the_java_tokenizer(text: str, tokens: str) -> None:
    assert tokenize(text) == tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("yes!No end?yes", "yes!no end?yes"),
        ("C# F# A# c#9", "c# f# a # c# 9"),
        ("bluey'all QU'RAN THEY'RE li'l", "bluey'all qu'ran they 're li'l"),
        ("Jr.x etc.y Mr.x", "jr. x etc. y mr.x"),
        ("a \u2018\u2019 \u201d` \u201c\u201c b, \u2019em O\u2019Brien", "a `' ''` ```` b \u2019em o\u2019brien"),
        ("#café ## @naïve a@b? <<x>>", "#café ## @na ïve a@b? << x >>"),
        ("'m2nd 'dog the '20: and '20", "'m 2nd dog the 20 and '20"),
        ("somethin'red ol'do ;)20", "somethin red ol do -rrb- 20"),
        ("plan B. Mr. Smith", "plan b mr. smith"),
        ("R&B., end.The., o'clock.,", "r&b. end.the. o'clock."),
    ],
)
def test_words_that_touch_marks_are_those_of_the_java_tokenizer(text: str, tokens: str) -> None:
    assert tokenize(text) == tokens


def test_the_shared_cases_are_equal(shared_data: Path) -> None:
    cases = json.loads((shared_data / "metrics/synthetic_captions/golden_ptb_cases.json").read_text(encoding="utf-8"))
    assert [tokenize(case["raw"]) for case in cases] == [case["ptb"] for case in cases]


def test_coco_captions_are_tokenized_as_by_java(shared_data: Path) -> None:
    folder = shared_data / "metrics/magic_coco"
    golden = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    different = []
    total = 0
    for item in json.loads((folder / "magic_result.json").read_text(encoding="utf-8")):
        image = item["image_name"]
        expected = [*golden["tokenized_res"][image], *golden["tokenized_gts"][image]]
        texts = [item["prediction"], *item["captions"]]
        total += len(texts)
        different += [text for text, tokens in zip(texts, expected, strict=True) if tokenize(text) != tokens]
    assert total == 29_902
    # The Java program read the next caption, which begins with "A", as what follows the last letter.
    assert [text.strip() for text in different] == ["A group of people trying out the new Nintendo Wii U."]
