"""Faults of a text that cleaning cannot mend: each check names one, or none."""

from __future__ import annotations

import re
from collections.abc import Sequence

from models.sentences import sentences_of

QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|«[^»]*»|「[^」]*」")


def _beginning(*patterns: str) -> re.Pattern[str]:
    """A text that begins with one of the patterns, in any case; ' stands for both apostrophes."""
    return re.compile(r"\A\W*(?:" + "|".join(patterns).replace("'", "['’]") + ")", re.I)


_PICTURE = "(?:image|picture|photo|photograph)"
_SEEMS = "it (?:seems|appears|looks like)(?: that)?"
# refusals, and answers of a model that did not get the image
_REFUSALS = _beginning(
    r"(?:i'?m|i am|we'?re|we are)\s+(?:very |really |so |truly )?(?:sorry|afraid)\b",
    r"(?:sorry|apologies|i apologi[sz]e|my apologies|unfortunately)\b(?!\s+(?:sign|sight|state|looking))",
    r"(?:i|we)\s+(?:can(?:no|')t|can not|could not|couldn't|will not|won't|must decline|have to decline)\b",
    r"(?:i|we)\s*(?:am|are|'m|'re)\s+(?:unable|not able|just an?|only an?|an? (?:ai|text|language|large))\b",
    r"(?:i|we)\s+(?:do not|don't)\s+(?:have|see (?:any|an|the) (?:image|picture|photo))\b",
    r"as an? (?:ai|artificial|large language|language model|text[- ]based|assistant|virtual)\b",
    rf"{_SEEMS} there(?:'s| is| are| was| were)? (?:no|not|an (?:issue|error))",
    rf"{_SEEMS} you (?:have not|haven't|did not|didn't|forgot)",
    rf"{_SEEMS} the {_PICTURE} (?:is|was|did|has|could) no",
    rf"(?:there (?:is|was|are) )?no (?:{_PICTURE}|notes?|observations?|information|content)s?\b[^.]{{0,40}}"
    r"(?:provided|attached|given|uploaded|available|shared|included|visible)",
    r"please (?:provide|upload|share|attach|send|give|paste|describe)\b",
    rf"(?:the )?{_PICTURE} (?:you (?:provided|mentioned|uploaded|sent) )?(?:is|was|could|can|did)\s*(?:not|n't)\s*"
    r"(?:be )?(?:provided|attached|available|visible|load|loaded|displayed|seen|viewed|accessible)",
    r"this (?:request|content|image) (?:violates|may violate|has been (?:blocked|flagged|filtered))",
    r"content (?:policy|filter|blocked|removed)",
    r"lo siento|lamento|no puedo|disculpa",
    r"désolé|je suis (?:désolée?|navrée?)|je ne peux pas",
    r"es tut mir leid|leider kann|ich kann (?:leider |das |dieses |dir |ihnen )*(?:nicht|kein)",
    r"mi dispiace|non posso|desculpe|sinto muito|não posso",
    r"извините|к сожалению|я не могу|прошу прощения",
    r"很?抱歉|对不起|對不起|我无法|我無法|我不能|作为(?:一个|一名)?(?:AI|人工智能|语言模型)",
    r"申し訳|すみません|죄송|لا أستطيع|عذرا|آسف",
)
# asking back, or offering help, instead of answering; a greeting may come before
_BACK = _beginning(
    r"(?:(?:hello|hi|hey|sure|okay|ok|certainly|of course|great)\b[^.,?!]{0,40}[.!,]\s*)*"
    r"(?:would you like|do you want|could you|can you|what would you|what do you|how (?:can|may) i|how are you"
    r"|what can i|which (?:one|image|part)|may i|shall i|should i|what (?:is|are) your|is there anything"
    r"|i(?:'d| would) (?:be happy|be glad|love|need)\b|i(?:'m| am) (?:happy|ready|here) to)",
    r"¿|wie kann ich|möchten sie|comment puis-je|voulez-vous|您想|你想|请问|请提供",
)


def refusal(text: str) -> str | None:
    """A refusal, or the answer of a model that saw no image: by the words at its beginning."""
    return "refusal" if _REFUSALS.match(text) else None


def question_back(text: str) -> str | None:
    """A question or an offer instead of an answer. A question that a sign asks stands in quotation marks."""
    if _BACK.match(text):
        return "question"
    sentences = sentences_of(QUOTED.sub("quoted", text))
    asked = [sentence for sentence in sentences if sentence.rstrip("\"”')").endswith(("?", "？", "؟"))]
    return "question" if sentences and len(asked) * 2 >= len(sentences) and asked else None


# an immediate repetition: of a word four times, of up to twelve words three times; of characters eight times
_MANY_WORDS, _MANY_PHRASES, _LONGEST_PHRASE = 4, 3, 12
_CHARACTERS = re.compile(r"(\S)\1{7,}")
_PIECES = re.compile(r"(\S{2,24}?)\1{4,}")  # in scripts without spaces between words
_MANY_SENTENCES = 3  # of the same words


def loop(text: str) -> str | None:
    """A text that goes in circles: the same characters, words, phrases or sentences, again and again."""
    text = QUOTED.sub(" ", text).casefold()
    if _CHARACTERS.search(text) or _PIECES.search(text):
        return "loop"
    words = re.findall(r"\w+(?:['’]\w+)?", text)
    for length in range(1, min(_LONGEST_PHRASE, len(words) // 2) + 1):
        wanted = _MANY_WORDS if length == 1 else _MANY_PHRASES
        run = 0
        for i in range(length, len(words)):
            # `run` counts how many words in a row equal those one phrase before
            run = run + 1 if words[i] == words[i - length] else 0
            if run >= length * (wanted - 1):
                return "loop"
    sentences = [" ".join(re.findall(r"\w+", sentence)) for sentence in sentences_of(text.upper())]
    counts = {sentence: sentences.count(sentence) for sentence in sentences if len(sentence) > 3}
    return "loop" if max(counts.values(), default=0) >= _MANY_SENTENCES else None


_LEAST_RUN = 10  # words in a row, of one sentence's length
_LARGEST_SHARE = 0.6  # of the words


def echo(text: str, prompts: Sequence[str]) -> str | None:
    """A text that repeats the prompt. prompts: the instructions alone, without notes, which an answer may repeat."""
    words = re.findall(r"\w+", text.casefold())
    for prompt in prompts:
        asked = " ".join(re.findall(r"\w+", prompt.casefold()))
        padded = f" {asked} "
        longest = 0
        for start in range(len(words)):
            # the longest run that starts here, if it is longer than the longest so far
            while start + longest < len(words) and f" {' '.join(words[start : start + longest + 1])} " in padded:
                longest += 1
        if longest >= _LEAST_RUN or (longest >= 4 and longest >= _LARGEST_SHARE * len(words)):
            return "echo"
    return None


def quotations(text: str) -> tuple[str, ...]:
    """What stands in double quotation marks in a text, each once."""
    return tuple(dict.fromkeys(quote[1:-1].strip() for quote in QUOTED.findall(text)))


def misquoted(text: str, quotations: Sequence[str]) -> str | None:
    """A text that lacks a quotation, letter by letter; the marks around it may be those of its language."""
    return "quotation" if any(quote not in text for quote in quotations) else None


def wordless(text: str) -> str | None:
    """A text without any word: "!!!!", "...", "<>" or nothing."""
    return None if any(character.isalpha() for character in text) else "empty" if not text.strip() else "no words"
