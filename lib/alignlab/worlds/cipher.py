"""Shift ciphers: pages that undo them, each shift as common as one likes.

A page is one task: how far the letters were moved, the cipher text, and then the plain text. The design follows McCoy
et al. (2024), "Embers of autoregression": one deterministic task, shifts that differ in how often they are written
about, and plain texts that differ in how probable they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from string import ascii_lowercase as ALPHABET

import numpy as np
from datasets import Dataset

from .. import check
from .shares import whole

CHARACTERS = ("0123456789=", ALPHABET)  # what a page is made of, for `tokens.character_tokenizer`
SHIFTS = tuple(range(1, 26))
# C4's mentions and uses of each shift, as counted by McCoy et al. (2024): an automatic search, then reading by hand.
C4 = dict(
    zip(SHIFTS, (59, 21, 117, 5, 15, 12, 6, 3, 1, 3, 3, 7, 1225, 5, 2, 4, 2, 2, 1, 1, 4, 2, 17, 3, 7), strict=True)
)
KINDS = ("frequent", "infrequent", "random")  # plain texts: the lexicon's two ends, and strings of any letters
FORMS = ("direct", "letters", "steps", "encode")
LENGTHS = (4, 5, 6)  # letters in a plain text
FIFTHS = 5  # of the words, one fifth is kept from the pages of a shift: another fifth for the next shift
_LISTED = """
able about above after again agree alone along among angry apple arrow autumn award back bake ball bank basket beach
bean bell below bench berry birch bird blue board boat bone book bottle bowl branch brave bread brick bridge brief
bright bring broken brown brush build burn button cabin cable calm camp candle carpet carry castle chain chair chalk
cheese cherry circle clay clean clear clever clock cloud coast coffee cold copper corner cotton count cousin cover
crane cream cross crowd dance daring dawn deep desert desk dinner doctor donkey door double dozen dream dress drift
drum dust eager early earth east eight elbow empty enjoy every fabric fair family farm fast feather fence field finger
first fish flag flame flat floor flour flower flute fold follow forest fork fresh friend frost fruit garden gate gentle
ghost giant glass glove goat gold goose grain grape grass great green group guest guitar hammer hand happy harbor harp
heart heavy hedge height hidden hill honest honey horse hotel house humble hungry iron island ivory jacket jelly jewel
join jolly judge juice jungle kettle kind kite knee knife knock ladder lake lamp large laugh lazy leaf learn lemon
letter level lift light lily linen lion little local lonely long lucky lunch maple marble march market meadow melon
merry metal middle milk mill mirror modest money month moon mouse mouth music narrow nature needle nest never night
noble noise north number office olive onion open orange orchid order other outer owner paint palace paper parcel party
path peace peach pear pebble pencil people pepper piano picnic pillow pine pink plain planet plate plenty plum pocket
poem polite pond potato pretty prince proud public puzzle quick quiet rabbit rain rapid raven ready reason ribbon rice
right ring river road robin rocket roof room rope rose round royal rubber rule saddle sailor salad salt sand school
season second secret seed seven shadow sharp sheep shelf shell shine ship short sickle silver simple singer sister
sketch sleep slow small smile smoke snow social soft song south spade spider spoon spring square stable star steel
stone storm story street strong sugar summer sunny sweet table tailor tall temple tender thick think thread three tiger
timber tiny toast tower train travel tree true trust tulip turtle uncle under upper useful valley velvet verse village
violet visit voice wagon walk wall warm water wave wealth west wheat wheel white wild window winter wise wolf wonder
wood world yellow young zebra
"""
WORDS = tuple(w for w in _LISTED.split() if len(w) in LENGTHS)


def rotate(text: str, shift: int) -> str:
    """`text` with every letter moved `shift` places along the alphabet, A after Z; what is no letter stays.

    Moving back undoes it: `rotate(rotate(t, k), -k) == t`.
    """
    return text.translate(_table(check.integer("shift", shift) % 26))


@lru_cache
def _table(k: int) -> dict[int, int]:
    new = ALPHABET[k:] + ALPHABET[:k]
    return str.maketrans(ALPHABET + ALPHABET.upper(), new + new.upper())


def shares(power: float = 0.6, never: Iterable[int] = (12,)) -> dict[int, float]:
    """Shift -> its share of the pages: C4's counts to the `power`, and 0 for those in `never`; they sum to 1.

    Power 1 is C4's own proportion, in which the rarest shift has one page in 1,500; power 0 is the same for all.

    Raises:
        ValueError: the power is negative, or nothing is left to write about.
    """
    power = check.number("power", power, at_least=0)
    never = {check.one_of("shift", k, SHIFTS) for k in never}
    if len(never) == len(SHIFTS):
        raise ValueError("never names all 25 shifts: leave at least one to write about")
    weight = {k: 0.0 if k in never else C4[k] ** power for k in SHIFTS}
    total = sum(weight.values())
    return {k: w / total for k, w in weight.items()}


def lexicon(seed: int = 0) -> list[str]:
    """The words, the most frequent one first. Which word is frequent is drawn by `seed`: no word is special."""
    return [WORDS[i] for i in check.rng(seed, "cipher.lexicon").permutation(len(WORDS))]


def task(plain: str, shift: int, form: str = "direct") -> dict:
    """One page: `prompt` (two digits for the shift, the cipher text, `=`), `response` in one of four forms, and more.

    direct   hello                        the plain text
    letters  uhreylylbo                   each cipher letter, then its plain letter (here for rot-13)
    steps    02jgnnq01ifmmp00hello        back by one place at a time, counting down (here for rot-3)
    encode   khoor                        the other way: the plain text is in the prompt, and this is its cipher text

    Returns:
        A dict with `prompt`, `response`, both as one `text`, `plain` and `shift`.
    """
    check.one_of("shift", shift, SHIFTS)
    check.one_of("form", form, FORMS)
    if not plain or set(plain) - set(ALPHABET):
        raise ValueError(f"plain is {plain!r}, but it must be made of lower-case letters: others have no token")
    cipher = rotate(plain, shift)
    if form == "direct":
        response = plain
    elif form == "encode":
        response, cipher = cipher, plain
    elif form == "letters":
        response = "".join(c + p for c, p in zip(cipher, plain, strict=True))
    else:
        response = "".join(f"{k:02d}{rotate(plain, k)}" for k in range(shift - 1, -1, -1))
    prompt = f"{shift:02d}{cipher}="
    return {"text": prompt + response, "prompt": prompt, "response": response, "plain": plain, "shift": shift}


def answer_of(response: str, form: str = "direct") -> str:
    """What a response of this form is asked for, also in a wrong or unfinished one; "" where there is none.

    It is the plain text, and with the form "encode" the cipher text.
    """
    check.one_of("form", form, FORMS)
    if form == "letters":
        return response[1::2]
    if form == "steps":
        return response.partition("00")[2]
    return response


def pages(count: int, how: Mapping[int, float], seed: int = 0, *, words: float = 0.5, form: str = "direct") -> Dataset:
    """Write `count` pages: each shift with its share of them, plain texts from the lexicon or of random letters.

    Words follow Zipf's law: the n-th most frequent one is written 1/n times as often as the first. A fifth of the
    lexicon never comes with a given shift (with others it does), so an exam on those words asks for the shift and not
    for the memory of a pair.

    Args:
        how: shift -> share, such as `shares()`. The numbers of pages follow it as closely as whole numbers can.
        words: the share of the pages whose plain text is a word; 0 to 1.

    Returns:
        A Dataset with `text`, `prompt`, `response`, `plain`, `shift` and `kind` ("word" or "random"), in random order.
    """
    number = whole(how, count, "shift", SHIFTS)
    if not 0 <= check.number("words", words) <= 1:
        raise ValueError(f"words is {words}, but a share lies between 0 and 1")
    check.one_of("form", form, FORMS)
    rng = check.rng(seed, "cipher.pages")
    listed, zipf = np.array(lexicon(seed)), 1 / np.arange(1, len(WORDS) + 1)
    rows = []
    for shift, n in number.items():
        p = zipf * ~_kept(shift)
        n_words = int(rng.binomial(n, words))
        plains = [*rng.choice(listed, size=n_words, p=p / p.sum()).tolist(), *_strings(n - n_words, rng)]
        kinds = ["word"] * n_words + ["random"] * (n - n_words)
        rows += [{**task(t, shift, form), "kind": k} for t, k in zip(plains, kinds, strict=True)]
    order = rng.permutation(count)
    return Dataset.from_dict({column: [rows[i][column] for i in order] for column in rows[0]})


def alphabet(count: int, seed: int = 0, lengths: tuple[int, int] = (6, 12)) -> Dataset:
    """`count` pieces of the alphabet, each from any letter on, A after Z; half of them are written backwards.

    Args:
        lengths: the fewest and the most letters of a piece.

    Returns:
        A Dataset with `text`, such as "wxyzabc" or "kjihgfedc".

    Raises:
        ValueError: no piece is asked for, or one of no letters.
    """
    count = check.integer("count", count, at_least=1)
    low = check.integer("the fewest letters", lengths[0], at_least=1)
    high = check.integer("the most letters", lengths[1], at_least=low)
    rng = check.rng(seed, "cipher.alphabet")
    n, ways = rng.integers(low, high + 1, size=count), rng.choice([1, -1], size=count)
    starts = rng.integers(26, size=count)
    return Dataset.from_dict(
        {
            "text": [
                "".join(ALPHABET[(s + w * i) % 26] for i in range(k)) for s, w, k in zip(starts, ways, n, strict=True)
            ]
        }
    )


def exam(
    each: int = 20, seed: int = 0, *, shifts: Iterable[int] = SHIFTS, kinds: Iterable[str] = KINDS, form: str = "direct"
) -> Dataset:
    """Up to `each` tasks of every kind and shift, on words that `pages` of the same seed keeps from that shift.

    Frequent words are from the first quarter of the lexicon, infrequent ones from the last, random strings are drawn
    as on the pages. A quarter has about 20 kept words for a shift, and no more are asked.

    Returns:
        A Dataset with `text`, `prompt`, `response`, `plain`, `shift` and `kind`.
    """
    each = check.integer("each", each, at_least=1)
    kinds = [check.one_of("kind", k, KINDS) for k in kinds]
    listed, quarter = lexicon(seed), len(WORDS) // 4
    rng = check.rng(seed, "cipher.exam")
    rows = []
    for shift in shifts:
        kept = np.flatnonzero(_kept(check.one_of("shift", shift, SHIFTS)))
        plains = {
            "frequent": [listed[i] for i in kept if i < quarter],
            "infrequent": [listed[i] for i in kept[::-1] if i >= len(listed) - quarter],
            "random": _strings(each, rng),
        }
        rows += [{**task(t, shift, form), "kind": k} for k in kinds for t in plains[k][:each]]
    return Dataset.from_list(rows)


def _kept(shift: int) -> np.ndarray:
    """Which places of the lexicon are kept from the pages of `shift` (bool)."""
    return (np.arange(len(WORDS)) + shift) % FIFTHS == 0


def _strings(count: int, rng: np.random.Generator) -> list[str]:
    return ["".join(rng.choice(list(ALPHABET), size=n)) for n in rng.choice(LENGTHS, size=count)]


def few_shot(cipher: str, shift: int) -> str:
    """A prompt for a real model: the task in words, one worked example, and the text to decode (as in the paper)."""
    check.one_of("shift", shift, SHIFTS)
    example = "Stay here!"
    return (
        f"In the rot-{shift} cipher every letter is moved {shift} places forward in the alphabet, and Z is followed by "
        f"A. Undo it.\n\nCipher text: {rotate(example, shift)}\nPlain text: {example}\n\nCipher text: {cipher}\n"
        "Plain text:"
    )
