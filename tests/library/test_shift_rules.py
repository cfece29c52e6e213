"""Token shift and the three rules, on cases worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from alignlab.experiment import panel
from alignlab.measure import shift
from alignlab.models import rules
from alignlab.models.answer import Reply, generate
from alignlab.models.llama import make_model
from alignlab.models.rules import EndRamp, Rules, SeenPenalty, TokenBias
from alignlab.models.tokens import prompt_text, word_tokenizer
from bs4 import BeautifulSoup
from transformers import LogitsProcessorList

# ---- ranks


def test_ranks_by_hand_with_ties():
    logits = torch.tensor([[3.0, 1.0, 2.0, 1.0], [0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 2.0, 5.0]])
    for column, expected in enumerate([(1, 1, 4), (3, 1, 2), (2, 1, 2), (3, 1, 1)]):  # ties share the best rank
        assert shift.ranks(logits, torch.tensor([column] * 3)).tolist() == list(expected)


@pytest.mark.parametrize(
    ("rank", "kind"), [(1, "unshifted"), (2, "marginal"), (3, "marginal"), (4, "shifted"), (900, "shifted")]
)
def test_kinds_are_those_of_the_paper(rank, kind):
    assert shift.kind(rank) == kind


@pytest.mark.parametrize(("rank", "error"), [(0, ValueError), (1.0, TypeError)])
def test_a_rank_that_is_none_is_refused(rank, error):
    with pytest.raises(error, match="rank"):
        shift.kind(rank)


# ---- the table


@pytest.fixture(scope="module")
def shifted(taught, tokenizer):
    return shift.token_shift(taught.base, taught.model, tokenizer, taught.pairs["prompt"][:14], batch=5)


def test_every_number_of_a_row_is_what_the_models_say(taught, tokenizer):
    prompts = taught.pairs["prompt"][:14]
    short = generate(taught.model, tokenizer, prompts, max_new_tokens=44)
    rambling = generate(taught.base, tokenizer, prompts, template=False, max_new_tokens=9)
    said = [*short[:4], *rambling[4:]]
    shifted = shift.token_shift(taught.base, taught.model, tokenizer, prompts, said, batch=5)
    assert shifted.groupby("reply").size().tolist() == [len(r.tokens) for r in said]
    assert len({len(r.tokens) for r in said}) > 1 and len(set(shifted["kind"])) > 1  # there is something to get wrong
    for n in (0, 3, 13):
        head = tokenizer(prompt_text(taught.pairs["prompt"][n], tokenizer), add_special_tokens=False)["input_ids"]
        rows = shifted[shifted["reply"] == n]
        for place, token in enumerate(said[n].tokens):
            with torch.inference_mode():
                ids = torch.tensor([[*head, *said[n].tokens[:place]]])
                b, a = (m(input_ids=ids).logits[0, -1].log_softmax(-1) for m in (taught.base, taught.model))
            row = rows.iloc[place]
            assert row["position"] == place and row["token"] == tokenizer.decode([token])
            assert row["rank"] == b.argsort(descending=True).tolist().index(token) + 1
            assert row["kind"] == shift.kind(int(row["rank"]))
            assert row["p_base"] == pytest.approx(math.exp(b[token]), rel=1e-3)
            assert row["p_aligned"] == pytest.approx(math.exp(a[token]), rel=1e-3)
            assert row["kl"] == pytest.approx(float((a.exp() * (a - b)).sum()), rel=1e-2, abs=1e-4)
            assert row["instead"] == tokenizer.decode([int(b.argmax())])


def test_by_default_the_aligned_model_speaks(shifted, taught, tokenizer):
    said = generate(taught.model, tokenizer, taught.pairs["prompt"][:14], max_new_tokens=44)
    whole = shift.token_shift(taught.base, taught.model, tokenizer, taught.pairs["prompt"][:14], said, batch=5)
    pd.testing.assert_frame_equal(whole, shifted)


def test_an_empty_prompt_has_no_token_to_rank_after(taught, tokenizer):
    bare = tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<eos>", pad_token="<pad>")
    bare.chat_template = "{{ messages[0]['content'] }}"
    reply = Reply("she", False, (7, 8))
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        shift.token_shift(taught.base, taught.model, bare, ["who ?", ""], [reply, reply])


def test_batches_change_no_row(shifted, taught, tokenizer):
    whole = shift.token_shift(taught.base, taught.model, tokenizer, taught.pairs["prompt"][:14], batch=14)
    pd.testing.assert_frame_equal(whole, shifted, atol=1e-4)


def test_a_models_own_greedy_words_are_not_shifted(taught, tokenizer):
    prompts = taught.pairs["prompt"][:6]
    own = generate(taught.base, tokenizer, prompts, template=False, max_new_tokens=9)
    read = shift.token_shift(taught.base, taught.model, tokenizer, prompts, own, base_template=False)
    assert set(read["rank"]) == {1} and len(read) == sum(len(r.tokens) for r in own)


def test_the_bases_format_is_its_own(taught, tokenizer):
    prompts = taught.pairs["prompt"][:3]
    by_default = shift.token_shift(taught.base, taught.model, tokenizer, prompts)
    plain = shift.token_shift(taught.base, taught.model, tokenizer, prompts, base_template=False)
    assert by_default["p_aligned"].equals(plain["p_aligned"]) and not by_default["p_base"].equals(plain["p_base"])


def test_the_base_may_read_the_reply_behind_another_prompt(taught, tokenizer):
    prompts = taught.pairs["prompt"][:3]
    said = generate(taught.model, tokenizer, prompts, max_new_tokens=9)
    behind = [f"{p} {taught.pairs['response'][0]} {p}" for p in prompts]
    table = shift.token_shift(
        taught.base, taught.model, tokenizer, prompts, said, base_template=False, base_prompts=behind
    )
    alone = shift.token_shift(taught.base, taught.base, tokenizer, behind, said, template=False)
    assert table["p_base"].to_numpy() == pytest.approx(alone["p_base"].to_numpy(), rel=1e-4)
    here = shift.token_shift(taught.base, taught.model, tokenizer, prompts, said, base_template=False)
    assert table["p_aligned"].to_numpy() == pytest.approx(here["p_aligned"].to_numpy(), rel=1e-4)
    assert not table["p_base"].equals(here["p_base"])
    with pytest.raises(ValueError, match="2 base prompts to 3 prompts"):
        shift.token_shift(taught.base, taught.model, tokenizer, prompts, said, base_prompts=behind[:2])


def frame(*ranks: list[int]) -> pd.DataFrame:
    rows = [
        {"reply": i, "position": k, "rank": r, "kl": float(r)} for i, own in enumerate(ranks) for k, r in enumerate(own)
    ]
    return pd.DataFrame(rows).assign(kind=lambda t: t["rank"].map(shift.kind))


def test_shares_and_parting_by_hand():
    table = frame([1, 1, 9], [2, 1, 1, 3], [1])
    assert shift.shares(table) == {"unshifted": 5 / 8, "marginal": 2 / 8, "shifted": 1 / 8, "kl": 19 / 8}
    assert shift.parting(table).tolist() == [2, 0, 1]  # the last one never parts: it is one token long
    with pytest.raises(ValueError, match="no rows"):
        shift.shares(table.head(0))


def test_pairs_that_do_not_fit_are_refused(taught, tokenizer):
    other = make_model(word_tokenizer(["a", "b"]), width=32, depth=1, seed=0)
    with pytest.raises(ValueError, match="ranks need one vocabulary"):
        shift.token_shift(other, taught.model, tokenizer, ["who ?"])
    bigger = word_tokenizer([f"w{i}" for i in range(500)])
    with pytest.raises(ValueError, match="the tokenizer has 506 tokens"):
        shift.token_shift(taught.base, taught.model, bigger, ["w1"])


def test_replies_that_cannot_be_ranked_are_refused(taught, tokenizer):
    pair = taught.base, taught.model, tokenizer
    with pytest.raises(ValueError, match="reply 1 is empty"):
        shift.token_shift(*pair, ["who ?", "where ?"], [Reply("x", False, (7,)), Reply("", False, ())])
    with pytest.raises(ValueError, match="1 replies to 2 prompts"):
        shift.token_shift(*pair, ["who ?", "where ?"], [Reply("x", False, (7,))])
    with pytest.raises(ValueError, match="no prompts"):
        shift.token_shift(*pair, [])


# ---- each rule alone


def test_the_end_becomes_likelier_with_every_token():
    rule, before = EndRamp(eos_token_id=2, start=3, strength=15, length=5), torch.zeros(2, 4)
    for n, bonus in enumerate([0, 3, 6, 9, 12, 15, 15, 15]):
        after = rule(torch.ones(2, 3 + n, dtype=torch.long), before)
        assert after.tolist() == [[0, 0, bonus, 0]] * 2
    assert before.abs().sum() == 0  # what came in is not changed


def test_words_are_changed_everywhere_and_by_their_own_bias():
    rule, before = TokenBias({0: -5.0, 3: 2.5}), torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, -1.0, 0.0, 4.0]])
    for length in (1, 9):
        assert rule(torch.ones(2, length, dtype=torch.long), before).tolist() == [[-4, 1, 1, 3.5], [-5, -1, 0, 6.5]]
    assert before[0].tolist() == [1, 1, 1, 1]


def test_what_was_said_is_charged_once():
    said = torch.tensor([[1, 1, 1], [0, 3, 1]])
    assert SeenPenalty(1.5)(said, torch.zeros(2, 4)).tolist() == [[0, -1.5, 0, 0], [-1.5, -1.5, 0, -1.5]]


def test_what_the_prompt_says_may_be_free():
    said = torch.tensor([[3, 1, 1], [0, 3, 2]])  # two tokens of prompt, the first of the second row is padding
    paper = [[0, -1.5, 0, -1.5], [0, 0, -1.5, -1.5]]
    assert SeenPenalty(1.5, pad_token_id=0)(said, torch.zeros(2, 4)).tolist() == paper
    of_the_reply = SeenPenalty(1.5, pad_token_id=0, start=2)
    assert of_the_reply(said, torch.zeros(2, 4)).tolist() == [[0, -1.5, 0, 0], [0, 0, -1.5, 0]]
    assert of_the_reply(said[:, :2], torch.zeros(2, 4)).tolist() == [[0] * 4] * 2  # nothing has been said yet
    with pytest.raises(ValueError, match="start"):
        SeenPenalty(1.5, start=-1)


def test_rules_count_the_prompt_unless_they_say_otherwise(tokenizer):
    three = Rules(end=15, words={"was": -5.0}, seen=1.5)
    free = replace(three, prompt=False)
    assert [rules.processors(r, tokenizer)(7)[1].start for r in (three, free)] == [0, 7]
    assert free.only("seen").prompt is free.scaled(2).prompt is rules.permuted(free, tokenizer).prompt is False


@pytest.mark.parametrize("bad", ["much", None, True, [1.0]])
def test_a_strength_that_is_no_number_is_refused(bad):
    with pytest.raises(TypeError, match="strength of the end rule must be a number"):
        EndRamp(2, 0, bad, 5)
    with pytest.raises(TypeError, match="strength of the seen rule must be a number"):
        SeenPenalty(bad)
    with pytest.raises(TypeError, match="bias of token 3 must be a number"):
        TokenBias({3: bad})
    for field in ("end", "seen"):
        with pytest.raises(TypeError, match=f"strength of the {field} rule"):
            Rules(**{field: bad})
    with pytest.raises(TypeError, match="bias of 'what'"):
        Rules(words={"what": bad})


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_strength_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        Rules(end=bad)
    with pytest.raises(ValueError, match="finite"):
        SeenPenalty(bad)


def test_a_bias_for_a_token_that_is_not_there_is_refused(tokenizer):
    with pytest.raises(ValueError, match="token 9, but the model has 4 tokens"):
        TokenBias({9: 1.0})(torch.ones(1, 1, dtype=torch.long), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="'zebra', which is no token"):
        rules.processors(Rules(words={"zebra": 1.0}), tokenizer)


# ---- all together


def test_only_leaves_the_other_rules_out():
    three = Rules(end=15, words={"was": -5.0}, seen=1.5, length=9)
    assert three.only() == Rules(length=9)
    assert three.only("end") == Rules(end=15, length=9)
    assert three.only("words", "seen") == Rules(words={"was": -5.0}, seen=1.5, length=9)
    assert three.only(*rules.NAMES) == three
    assert three.scaled(0.5) == Rules(end=15, words={"was": -2.5}, seen=1.5, length=9)
    with pytest.raises(ValueError, match="'start', which is not known"):
        three.only("start")


def test_no_rules_change_nothing_and_rules_know_where_the_reply_starts(taught, tokenizer):
    prompts = ["where was she born ?", *taught.pairs["prompt"][:5]]  # different lengths: there is padding
    free = generate(taught.base, tokenizer, prompts, template=False, max_new_tokens=8)
    none = rules.processors(Rules(), tokenizer)
    assert generate(taught.base, tokenizer, prompts, template=False, max_new_tokens=8, logits_processor=none) == free
    # A bonus that no logit can beat at its full height, after three tokens: all end there at the latest, none at once.
    ramp = rules.processors(Rules(end=1e4, length=3), tokenizer)
    ended = generate(taught.base, tokenizer, prompts, template=False, max_new_tokens=8, batch=4, logits_processor=ramp)
    assert all(r.stopped for r in ended) and {len(r.tokens) for r in ended} == {2}
    assert [r.tokens[0] for r in ended] == [r.tokens[0] for r in free]  # at position 0 there is no bonus yet


def test_a_plain_list_of_processors_is_taken_too(taught, tokenizer):
    prompts = taught.pairs["prompt"][:3]
    forbidden = generate(taught.base, tokenizer, prompts, template=False, max_new_tokens=1)[0].tokens[0]
    rule = LogitsProcessorList([TokenBias({forbidden: -1e4})])
    said = generate(taught.base, tokenizer, prompts, template=False, max_new_tokens=6, logits_processor=rule)
    assert not any(forbidden in r.tokens for r in said)


def test_permuted_rules_keep_the_biases_and_move_the_words(tokenizer):
    own = Rules(end=1, words={"was": -5.0, "born": 2.0}, seen=3)
    moved = rules.permuted(own, tokenizer, seed=1)
    assert sorted(moved.words.values()) == [-5.0, 2.0] and (moved.end, moved.seen) == (1, 3)
    assert not set(moved.words) & {"was", "born", *tokenizer.all_special_tokens}
    assert moved == rules.permuted(own, tokenizer, seed=1) != rules.permuted(own, tokenizer, seed=2)


# ---- replies that were begun


def test_a_reply_goes_on_from_its_beginning(taught, tokenizer):
    prompts = taught.pairs["prompt"][:4]
    whole = generate(taught.base, tokenizer, prompts, template=False, max_new_tokens=6)
    begun = [" ".join(r.text.split()[:2]) for r in whole]
    rest = generate(taught.base, tokenizer, prompts, template=False, max_new_tokens=4, prefill=begun)
    assert [(*w.tokens[:2], *r.tokens) for w, r in zip(whole, rest, strict=True)] == [w.tokens for w in whole]
    nothing = generate(taught.base, tokenizer, prompts, template=False, max_new_tokens=6, prefill=[""] * 4)
    assert nothing == whole
    other = generate(taught.base, tokenizer, prompts, template=False, max_new_tokens=4, prefill=["she"] * 4, batch=3)
    assert [r.tokens for r in other] != [w.tokens[:4] for w in whole]
    with pytest.raises(ValueError, match="1 prefills for 4 prompts"):
        generate(taught.base, tokenizer, prompts, prefill=["she"])


# ---- what a reader can move


def test_the_viewer_says_rank_and_probability_of_every_token(shifted, taught, tokenizer):
    prompts = [*taught.pairs["prompt"][:13], taught.pairs["prompt"][0]]  # one question twice
    viewed = shift.token_shift(taught.base, taught.model, tokenizer, prompts)
    page = BeautifulSoup(panel.shift_viewer(viewed, prompts).data, "html.parser")
    assert len(page.find_all("option")) == len(page.find_all("section")) == 14
    assert len({o.text for o in page.find_all("option")}) == 14
    for n, section in enumerate(page.find_all("section")[:13]):
        rows = shifted[shifted["reply"] == n]
        words = section.find(class_="tokens").find_all(["span", "ruby"])
        assert len(words) == len(rows) == len(section.details.find_all("tr")) - 1
        for word, row in zip(words, rows.itertuples(), strict=True):
            assert word["title"] == f"{row.kind}: rank {row.rank} under the base, probability {row.p_base:.3f}"
            assert (word.name == "ruby") == (row.rank > 1)
            if row.rank > 1:  # not by colour alone: the rank is written above it
                assert word.rt.text == str(row.rank) and word["class"] == [row.kind]


def test_words_in_the_viewer_are_escaped(taught):
    words = word_tokenizer(["<b>", "a&b"])
    model = make_model(words, width=32, depth=1, seed=0)
    reply = Reply("<b> a&b", False, tuple(words("<b> a&b", add_special_tokens=False)["input_ids"]))
    said = shift.token_shift(model, model, words, ["<i>"], replies=[reply], template=False)
    shown = panel.shift_viewer(said, ["<i>"]).data
    assert "<b>" not in shown and "<i>" not in shown and "&lt;b&gt;" in shown and "a&amp;b" in shown
    with pytest.raises(ValueError, match="2 prompts to 1 replies: pass one per reply"):
        panel.shift_viewer(said, ["<i>", "<u>"])


def test_sliders_show_the_table_of_their_places():
    axes = {"end": (0.0, 15.0), "how <much>": ("no", "some", "all")}
    cells = {(e, w): pd.DataFrame({"said": [f"{e} {w}"]}) for e in axes["end"] for w in axes["how <much>"]}
    page = BeautifulSoup(panel.sliders(axes, cells).data, "html.parser")
    first, second = page.find_all("input")
    assert [(i["min"], i["max"], i["value"]) for i in (first, second)] == [("0", "1", "0"), ("0", "2", "0")]
    assert first["data-values"] == "0|15" and second["data-values"] == "no|some|all"
    sections = page.find_all("section")
    assert [s.has_attr("hidden") for s in sections] == [False] + [True] * 5
    for i, e in enumerate(axes["end"]):
        for j, w in enumerate(axes["how <much>"]):
            at = i * int(first["data-stride"]) + j * int(second["data-stride"])
            assert sections[at].td.text == f"{e} {w}"
    with pytest.raises(ValueError, match="no table for {'end': 15.0, 'how <much>': 'all'}"):
        panel.sliders(axes, {k: v for k, v in cells.items() if k != (15.0, "all")})
    with pytest.raises(ValueError, match="'end' has 1 value"):
        panel.sliders({"end": (0.0,)}, {(0.0,): cells[0.0, "no"]})


def test_dials_answer_at_once_and_again_and_show_refusals(monkeypatch, capsys):
    shown, asked = [], []
    monkeypatch.setattr(panel, "display", shown.append)

    def answer(end, seen):
        asked.append((end, seen))
        if seen > 2:
            raise ValueError("too much")
        return pd.DataFrame({"end": [end]})

    panel.dials(answer, {"end": (0, 10, 1), "seen": (0, 3, 0.5)})
    end, seen, _ = shown[-1].children
    end.value = 4
    seen.value = 3
    assert asked == [(0, 0), (4, 0), (4, 3)]


def test_heat_maps_show_every_share_of_their_moment():
    moments = {100: pd.Series({1: 0.0, 13: 0.25}), 200: pd.Series({1: 0.5, 13: 1.0})}
    page = BeautifulSoup(panel.heat_maps("Steps", moments).data, "html.parser")
    assert page.find("input")["data-values"] == "100|200"
    first, second = page.find_all("section")
    assert "hidden" in second.attrs and "hidden" not in first.attrs
    assert [li.get_text(" ") for li in first.find_all("li")] == ["1 0.00", "13 0.25"]
    assert [li["style"] for li in second.find_all("li")] == ["--share:0.50", "--share:1.00"]
    with pytest.raises(ValueError, match="13 is 1.5 at 300: a heat map shows shares"):
        panel.heat_maps("Steps", moments | {300: pd.Series({13: 1.5})})
    with pytest.raises(ValueError, match="'Steps' has 1 value"):
        panel.heat_maps("Steps", {100: moments[100]})


def test_padding_has_not_been_said():
    """A pad token that is the end token too is likelier to be said where nothing but padding held it."""
    ids, scores = torch.tensor([[0, 0, 3], [0, 3, 0]]), torch.zeros(2, 5)
    penalised = SeenPenalty(1.5, pad_token_id=0)(ids, scores)
    assert penalised.tolist() == [[0, 0, 0, -1.5, 0], [-1.5, 0, 0, -1.5, 0]]
    assert SeenPenalty(1.5)(ids, scores)[0].tolist() == [-1.5, 0, 0, -1.5, 0]
