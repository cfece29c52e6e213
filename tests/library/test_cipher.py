"""Shift ciphers: what a page says, how often each shift is written about, and what a decoding is worth."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from alignlab.measure import knowledge, score
from alignlab.models.answer import reply
from alignlab.models.llama import make_model
from alignlab.models.tokens import character_tokenizer, documents, replies
from alignlab.training.train import PRETRAIN, train
from alignlab.worlds import cipher
from datasets import Dataset

UNIFORM = cipher.shares(power=0, never=())


# ---- letters


@pytest.mark.parametrize(
    ("text", "shift", "moved"),
    [
        ("hello", 13, "uryyb"),
        ("hello", 3, "khoor"),
        ("xyz", 1, "yza"),
        ("Stay here!", 13, "Fgnl urer!"),
        ("hello", 0, "hello"),
        ("hello", 26, "hello"),
        ("khoor", -3, "hello"),
        ("é 7", 5, "é 7"),
        ("", 5, ""),
    ],
)
def test_letters_are_moved_and_the_rest_stays(text, shift, moved):
    assert cipher.rotate(text, shift) == moved


def test_only_rot_13_undoes_itself():
    assert [k for k in cipher.SHIFTS if cipher.rotate(cipher.rotate("dragon", k), k) == "dragon"] == [13]


@pytest.mark.parametrize("shift", [1.0, "3", True, None])
def test_a_shift_is_a_whole_number(shift):
    with pytest.raises(TypeError, match="shift must be an integer"):
        cipher.rotate("a", shift)


# ---- how often


def test_the_counts_are_the_papers():
    assert len(cipher.C4) == 25 and sum(cipher.C4.values()) == 1527
    assert (cipher.C4[13], cipher.C4[3], cipher.C4[1], cipher.C4[12]) == (1225, 117, 59, 7)


def test_power_one_is_c4_and_power_nought_is_even():
    own = cipher.shares(1, never=())
    assert own[13] == pytest.approx(1225 / 1527) and sum(own.values()) == pytest.approx(1)
    assert set(UNIFORM.values()) == {1 / 25}


def test_a_flattened_web_keeps_the_order_and_leaves_out_what_is_never_said():
    how = cipher.shares(0.75, never=(12, 9))
    assert how[12] == how[9] == 0 and sum(how.values()) == pytest.approx(1)
    assert how[13] / how[3] == pytest.approx((1225 / 117) ** 0.75)
    assert how[13] > how[3] > how[1] > how[2] > how[25] > how[24]


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"power": -1}, ValueError, "power is -1"),
        ({"power": "a"}, TypeError, "power must be a number, not 'a'"),
        ({"never": (26,)}, ValueError, "shift is 26, .* choose one of 1, 2"),
        ({"never": cipher.SHIFTS}, ValueError, "leave at least one"),
    ],
)
def test_wrong_shares_are_refused(arguments, error, said):
    with pytest.raises(error, match=said):
        cipher.shares(**arguments)


# ---- pages


def test_every_character_is_a_token_and_comes_back():
    tok = character_tokenizer(cipher.CHARACTERS)
    ids = tok("13uryyb= hello")["input_ids"]
    assert len(ids) == 1 + 13 and tok.unk_token_id not in ids and ids[0] == tok.bos_token_id
    assert tok.decode(ids, skip_special_tokens=True) == "13uryyb=hello"
    assert tok.convert_ids_to_tokens(tok("a!")["input_ids"]) == ["<bos>", "a", "<unk>"]
    chat = tok.apply_chat_template(
        [{"role": "user", "content": "03khoor="}], tokenize=False, add_generation_prompt=True
    )
    assert tok.convert_ids_to_tokens(tok(chat, add_special_tokens=False)["input_ids"]) == [
        "<bos>", "<user>", *"03khoor=", "<assistant>"]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "response"),
    [("direct", "hello"), ("letters", "khheololro"), ("steps", "02jgnnq01ifmmp00hello")],
)
def test_a_page_in_each_form_and_its_answer(form, response):
    made = cipher.task("hello", 3, form)
    text = "03khoor=" + response
    assert made == {"text": text, "prompt": "03khoor=", "response": response, "plain": "hello", "shift": 3}
    assert cipher.answer_of(response, form) == "hello"


def test_a_page_that_encodes_has_the_plain_text_in_its_prompt():
    made = cipher.task("hello", 3, "encode")
    assert made == {"text": "03hello=khoor", "prompt": "03hello=", "response": "khoor", "plain": "hello", "shift": 3}
    assert cipher.answer_of("khoor", "encode") == "khoor"


def test_pieces_of_the_alphabet_go_both_ways_and_round_its_end():
    texts = cipher.alphabet(400, seed=3)["text"][:]
    round_once = "abcdefghijklmnopqrstuvwxyz" * 2
    ahead = [t in round_once for t in texts]
    assert all(a or t[::-1] in round_once for a, t in zip(ahead, texts, strict=True)) and 150 < sum(ahead) < 250
    assert {len(t) for t in texts} == set(range(6, 13)) and len({t[0] for t in texts}) == 26
    assert any("za" in t for t in texts) and texts == cipher.alphabet(400, seed=3)["text"][:]


@pytest.mark.parametrize(("count", "lengths"), [(0, (6, 12)), (5, (0, 3)), (5, (7, 6))])
def test_wrong_pieces_of_the_alphabet_are_refused(count, lengths):
    with pytest.raises(ValueError, match="at least"):
        cipher.alphabet(count, lengths=lengths)


@pytest.mark.parametrize(("form", "said", "answer"), [
    ("direct", "hel", "hel"), ("direct", "", ""), ("letters", "khheol", "hel"), ("letters", "", ""),
    ("steps", "02jgnnq01ifmm", ""), ("steps", "", ""), ("steps", "01ab00yz00", "yz00"),
])  # fmt: skip
def test_the_answer_in_an_unfinished_response(form, said, answer):
    assert cipher.answer_of(said, form) == answer


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("Hello", 3), "plain is 'Hello'"),
        (("two words", 3), "plain is 'two words'"),
        (("", 3), "plain is ''"),
        (("hello", 0), "shift is 0"),
        (("hello", 3, "aloud"), "form is 'aloud'"),
    ],
)
def test_a_page_that_cannot_be_written_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        cipher.task(*arguments)


def test_the_lexicon_is_fit_for_an_exam():
    words = cipher.WORDS
    assert len(set(words)) == len(words) == 408
    assert {len(w) for w in words} == set(cipher.LENGTHS) and set("".join(words)) <= set(cipher.ALPHABET)
    # A decoding by a wrong shift can then never be another word.
    assert not {cipher.rotate(w, k) for w in words for k in cipher.SHIFTS} & set(words)


def test_a_seed_decides_which_words_are_frequent():
    assert cipher.lexicon(0) != cipher.lexicon(1) and sorted(cipher.lexicon(0)) == sorted(cipher.WORDS)
    assert cipher.lexicon(3) == cipher.lexicon(3)


def test_shifts_have_their_share_of_the_pages():
    written = cipher.pages(1000, cipher.shares(), seed=1)
    number = Counter(written["shift"])
    assert len(written) == 1000 and 12 not in number
    for shift, share in cipher.shares().items():
        assert abs(number[shift] - 1000 * share) < 1
    assert Counter(cipher.pages(50, UNIFORM)["shift"]) == dict.fromkeys(cipher.SHIFTS, 2)


def test_pages_are_right_and_mixed_and_the_same_for_a_seed():
    one, two = (cipher.pages(300, UNIFORM, seed=4, words=0.5) for _ in range(2))
    assert one.to_pandas().equals(two.to_pandas())
    assert one["prompt"] != cipher.pages(300, UNIFORM, seed=5)["prompt"]
    for row in one:
        assert row["prompt"] == f"{row['shift']:02d}{cipher.rotate(row['plain'], row['shift'])}="
        assert (row["plain"] in cipher.WORDS) == (row["kind"] == "word")
    assert 0.4 < np.mean([k == "word" for k in one["kind"]]) < 0.6
    assert list(one["shift"]) != sorted(one["shift"])
    assert {len(t) for t in one["plain"]} == set(cipher.LENGTHS)


def test_frequent_words_are_frequent():
    number = Counter(cipher.pages(20_000, UNIFORM, seed=2, words=1.0)["plain"])
    listed = cipher.lexicon(2)
    first, later = (np.mean([number[w] for w in listed[a:b]]) for a, b in ((0, 20), (200, 400)))
    assert first > 15 * later > 0
    assert Counter(cipher.pages(100, UNIFORM, words=0.0)["kind"]) == {"random": 100}


def test_the_exam_is_on_words_that_the_pages_keep_from_that_shift_only():
    seed = 7
    asked = cipher.exam(20, seed=seed).to_pandas()
    assert asked.groupby(["shift", "kind"]).size().eq(20).all() and len(asked) == 25 * 3 * 20
    seen = {(r["plain"], r["shift"]) for r in cipher.pages(20_000, UNIFORM, seed=seed, words=1.0)}
    words = asked[asked["kind"] != "random"]
    assert not seen & set(zip(words["plain"], words["shift"], strict=True))
    assert set(words["plain"]) <= {w for w, _ in seen}
    place = {w: i for i, w in enumerate(cipher.lexicon(seed))}
    assert words[words["kind"] == "frequent"]["plain"].map(place).max() < 102
    assert words[words["kind"] == "infrequent"]["plain"].map(place).min() >= 306


def test_an_exam_can_be_on_less():
    asked = cipher.exam(5, shifts=(3, 13), kinds=("random",), form="letters").to_pandas()
    assert list(asked["shift"]) == [3] * 5 + [13] * 5 and set(asked["kind"]) == {"random"}
    assert all(cipher.answer_of(r, "letters") == p for r, p in zip(asked["response"], asked["plain"], strict=True))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: cipher.pages(0, UNIFORM), "count is 0"),
        (lambda: cipher.pages(5, {27: 1.0}), "shift is 27"),
        (lambda: cipher.pages(5, {3: -1.0}), "the share of shift 3 is -1"),
        (lambda: cipher.pages(5, {3: 0.0}), "leave nothing to write"),
        (lambda: cipher.pages(5, UNIFORM, words=1.5), "words is 1.5"),
        (lambda: cipher.pages(5, UNIFORM, form="x"), "form is 'x'"),
        (lambda: cipher.pages(5, UNIFORM, -1), "seed is -1"),
        (lambda: cipher.exam(0), "each is 0"),
        (lambda: cipher.exam(5, kinds=("easy",)), "kind is 'easy'"),
        (lambda: cipher.exam(5, shifts=(26,)), "shift is 26"),
    ],
)
def test_wrong_arguments_are_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()


# ---- scores


def test_scores_by_hand():
    table = score.ciphers(
        ["But this time.", "hello", "hello", "hello", "hello"],
        [' "but this time."\n', "hallo", "The text is: hello", "", "helloo"],
    )
    assert list(table["exact"]) == [True, False, False, False, False]
    assert list(table["contained"]) == [True, False, True, False, True]
    assert list(table["letters"]) == pytest.approx([1, 0.8, 0, 0, 1])
    assert list(table["distance"]) == [0, 1, 13, 5, 1]


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ("kitten", "sitting", 3),
        ("", "abc", 3),
        ("abc", "", 3),
        ("same", "same", 0),
        ("ab", "ba", 2),
        ("abcd", "bcd", 1),
    ],
)
def test_edit_distance_by_hand(a, b, distance):
    assert score.edit_distance(a, b) == score.edit_distance(b, a) == distance


def test_scores_need_pairs():
    with pytest.raises(ValueError, match="2 decodings of 1 plain texts"):
        score.ciphers(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="plain text 1 is empty"):
        score.ciphers(["a", " "], ["a", "b"])


def test_a_real_model_is_shown_the_task_in_words():
    prompt = cipher.few_shot("Uryyb!", 13)
    assert "rot-13" in prompt and "Fgnl urer!" in prompt and "Stay here!" in prompt
    assert prompt.endswith("Cipher text: Uryyb!\nPlain text:")
    with pytest.raises(ValueError, match="shift is 0"):
        cipher.few_shot("a", 0)


# ---- a model


def test_a_tiny_model_learns_a_shift_it_meets_and_not_one_it_never_meets():
    tok = character_tokenizer(cipher.CHARACTERS)
    model = make_model(tok, width=32, depth=2, seed=0)
    met = Dataset.from_list([cipher.task(a + b + "aa", 1) for a in "abc" for b in "abc"])
    train(model, replies(met, tok, template=False), 100, PRETRAIN.but(batch=9), seed=0)
    assert knowledge.exact_match(model, tok, met, template=False)["correct"].all()
    said = reply(model, tok, met["prompt"], template=False, max_new_tokens=8)
    assert score.ciphers(met["plain"], said)["exact"].all()
    never = Dataset.from_list([cipher.task("abaa", 2)])
    assert not knowledge.exact_match(model, tok, never, template=False)["correct"].any()


def test_pages_are_documents_too():
    tok = character_tokenizer(cipher.CHARACTERS)
    written = cipher.pages(3, UNIFORM)
    for row, page in zip(documents(written, tok)["input_ids"], written, strict=True):
        assert tok.decode(row, skip_special_tokens=True) == page["prompt"] + page["response"]
