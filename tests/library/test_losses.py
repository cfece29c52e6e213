"""Every loss: a case worked by hand, the direction of its gradient, and the same number from another library."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from alignlab.models import read, tokens
from alignlab.models.llama import make_model
from alignlab.models.reward import RewardModel, agreement, margins, scores
from alignlab.models.tokens import IGNORE
from alignlab.training.losses import (
    SIDES,
    bradley_terry,
    dpo,
    k3,
    next_token,
    policy_gradient,
    unlikelihood,
    with_reference,
)
from alignlab.training.train import FINETUNE, PRETRAIN, batches, train
from alignlab.worlds import biographies
from datasets import Dataset
from transformers import LlamaForSequenceClassification


@pytest.fixture
def even(tiny):
    """A model for which all tokens are equally likely, whatever stands before."""
    tiny.lm_head.weight.data.zero_()
    return tiny


@pytest.fixture(scope="module")
def pairs(world, tokenizer):
    """Twenty questions with the right answer and another one."""
    asked = biographies.questions(world).select(range(20))
    right = asked["response"][:]
    wrong = [next(w for w in right[i:] + right if w != r) for i, r in enumerate(right)]
    made = Dataset.from_dict({"prompt": asked["prompt"][:], "chosen": right, "rejected": wrong})
    return tokens.pairs(made, tokenizer)


@pytest.fixture(scope="module")
def other(tokenizer):
    return make_model(tokenizer, 32, 1, seed=7)


def batch_of(rows, n=4):
    return next(batches(rows, n, order=range(n)))


def stepped(model, loss, size=0.1):
    """A copy of the model, moved a little against the gradient of the loss."""
    moved = deepcopy(model)
    loss(moved).backward()
    for p in moved.parameters():
        if p.grad is not None:
            p.data -= size * p.grad
    return moved


def gradient(model, loss):
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, model.parameters(), allow_unused=True) if g is not None]
    )


def log_p(model, ids, labels):
    with torch.no_grad():
        return read.log_probs(model, ids, labels).sum(1)


def margin(model, batch):
    chosen, rejected = (log_p(model, batch[f"{s}_input_ids"], batch[f"{s}_labels"]) for s in SIDES)
    return (chosen - rejected).mean().item()


# ---- next token, and its opposite


def test_next_token_is_the_loss_of_transformers(tiny, world, tokenizer):
    batch = batch_of(tokens.replies(biographies.questions(world, wording=1), tokenizer), 20)
    ids, labels = batch["input_ids"], batch["labels"]
    assert (labels == IGNORE).any() and (ids == tokenizer.pad_token_id).any()
    theirs = tiny(input_ids=ids, attention_mask=(ids != tokenizer.pad_token_id).long(), labels=labels).loss
    assert next_token(tiny, batch).item() == pytest.approx(theirs.item(), abs=1e-5)


def test_next_token_of_even_odds_is_the_log_of_the_vocabulary(even, tokenizer):
    batch = {"input_ids": torch.tensor([[5, 6, 7]]), "labels": torch.tensor([[IGNORE, 6, 7]])}
    assert next_token(even, batch).item() == pytest.approx(math.log(len(tokenizer)), abs=1e-5)
    # 1 - 1/V for either of the two tokens
    assert unlikelihood(even, batch).item() == pytest.approx(-math.log(1 - 1 / len(tokenizer)), rel=1e-4)


def test_a_batch_without_a_label_is_refused_as_that(tiny):
    for labels in ([[IGNORE] * 3], [[5, IGNORE, IGNORE]]):  # the first token is never expected
        for loss in (next_token, unlikelihood):
            with pytest.raises(ValueError, match="no row of the batch has a label .* nothing to learn from"):
                loss(tiny, {"input_ids": torch.tensor([[5, 6, 7]]), "labels": torch.tensor(labels)})


def test_next_token_makes_labels_likelier_and_unlikelihood_unlikelier(tiny):
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    batch = {"input_ids": ids, "labels": ids}
    before = log_p(tiny, ids, ids).mean()
    assert log_p(stepped(tiny, lambda m: next_token(m, batch)), ids, ids).mean() > before
    assert log_p(stepped(tiny, lambda m: 100 * unlikelihood(m, batch)), ids, ids).mean() < before


def test_unlikelihood_is_exact_and_has_a_gradient_where_a_token_is_certain(tiny):
    logits = torch.tensor([[[30.0, 0.0, 0.0]]], requires_grad=True)  # 1 - p rounds to 0 in float32
    tiny.forward = lambda input_ids, **_: (logits.expand(len(input_ids), input_ids.shape[1], 3),)
    read._seen_causal.add(tiny)
    loss = unlikelihood(tiny, {"input_ids": torch.tensor([[1, 0]]), "labels": torch.tensor([[IGNORE, 0]])})
    assert loss.item() == pytest.approx(30 - math.log(2), rel=1e-6)
    loss.backward()
    assert logits.grad[0, 0].tolist() == pytest.approx([1, -0.5, -0.5], abs=1e-5)


# ---- preferences


def test_bradley_terry_by_hand(pairs):
    def model(ids, labels):  # (2B, T): the chosen replies, then the rejected ones
        return torch.tensor([2.0, 0.0, 1.0, 1.0])

    wanted = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 2
    assert bradley_terry(model, batch_of(pairs, 2)).item() == pytest.approx(wanted)


def test_dpo_by_hand(even, tokenizer):
    batch = {
        "chosen_input_ids": torch.tensor([[5, 6, 7]]), "chosen_labels": torch.tensor([[IGNORE, 6, 7]]),
        "rejected_input_ids": torch.tensor([[5, 8]]), "rejected_labels": torch.tensor([[IGNORE, 8]]),
    }  # fmt: skip
    assert dpo(0.5, deepcopy(even))(even, batch).item() == pytest.approx(math.log(2))  # nothing has changed
    one = -math.log(len(tokenizer))  # the log-probability of a token
    batch |= {"reference_chosen": torch.tensor([2 * one - 2]), "reference_rejected": torch.tensor([one + 1])}
    # chosen has gained 2, rejected has lost 1: log(1 + exp(-beta * 3))
    assert dpo(0.5)(even, batch).item() == pytest.approx(math.log(1 + math.exp(-1.5)), rel=1e-4)


def test_dpo_moves_probability_from_the_rejected_to_the_chosen(tiny, pairs):
    batch = batch_of(pairs)
    moved = stepped(tiny, lambda m: dpo(0.1, tiny)(m, batch))
    assert margin(moved, batch) > margin(tiny, batch)


def test_a_reference_in_columns_is_the_reference(tiny, other, pairs):
    rows = with_reference(pairs, other, batch=3)  # twenty rows: the last part is a short one
    for n in (1, 5):
        carried, plain = batch_of(rows, n), batch_of(pairs, n)
        assert dpo(0.3)(tiny, carried).item() == pytest.approx(dpo(0.3, other)(tiny, plain).item(), rel=1e-5)
    assert rows.column_names == [*pairs.column_names, "reference_chosen", "reference_rejected"]


def test_a_missing_or_wrong_reference_is_refused(tiny, pairs, tokenizer, world):
    batch = batch_of(pairs)
    wider = make_model(tokens.word_tokenizer(biographies.words(world, ["zebra"])), 32, 1)
    with pytest.raises(ValueError, match=r"DPO needs a reference: pass dpo\(beta, reference\)"):
        dpo(0.1)(tiny, batch)
    with pytest.raises(ValueError, match="reference is the model that is trained: .*deepcopy"):
        dpo(0.1, tiny)(tiny, batch)
    with pytest.raises(ValueError, match=f"{len(tokenizer)} tokens and the reference {len(tokenizer) + 1}"):
        dpo(0.1, wider)(tiny, batch)
    narrow = make_model(tokens.word_tokenizer(["a"]), 32, 1)
    with pytest.raises(ValueError, match="but the reference has 7: take one with the vocabulary of the model"):
        with_reference(pairs, narrow)
    with pytest.raises(ValueError, match="beta is 0"):
        dpo(0)


def test_two_replies_that_are_equal_are_no_pair(tokenizer):
    same = Dataset.from_dict({"prompt": ["a", "b"], "chosen": ["Lisbon", "Ghent"], "rejected": ["Ghent", "Ghent"]})
    with pytest.raises(ValueError, match="chosen and rejected of row 1 are the same, 'Ghent'"):
        tokens.pairs(same, tokenizer)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (next_token, "no 'input_ids', only .* make it with tokens.replies"),
        (policy_gradient(), "no 'input_ids', only .* make it with rollouts.rollout"),
        (bradley_terry, "no 'chosen_labels', only .* make it with tokens.pairs"),
        (dpo(0.1), "no 'chosen_labels', only .* make it with tokens.pairs"),
    ],
    ids=["next_token", "policy_gradient", "bradley_terry", "dpo"],
)
def test_rows_of_another_kind_are_refused(tiny, pairs, loss, said):
    with pytest.raises(ValueError, match=f"the batch has {said}"):
        loss(tiny, {k: v for k, v in batch_of(pairs).items() if k != "chosen_labels"})


def test_twenty_pairs_are_learned_by_dpo(tiny, pairs):
    base, seen = deepcopy(tiny), batch_of(pairs, 20)
    before = margin(base, seen)
    losses = train(tiny, pairs, 100, FINETUNE.but(batch=10, lr=3e-3), loss=dpo(0.1, base))
    assert losses[0] == pytest.approx(math.log(2)) and losses[-1] < 0.3
    assert margin(tiny, seen) > before + 10


# ---- a reward model


def test_a_reward_model_learns_twenty_pairs(tiny, pairs):
    judge = RewardModel(tiny)
    assert agreement(judge, pairs) == 0.5  # a new one has no preferences
    losses = train(judge, pairs, 100, FINETUNE.but(batch=10, lr=3e-3), loss=bradley_terry)
    assert losses[0] == pytest.approx(math.log(2)) and agreement(judge, pairs) == 1
    assert (margins(judge, pairs) > 0).all()


@pytest.mark.parametrize(("how", "wanted"), [("sum", [5.0, 4.0]), ("last", [3.0, 4.0]), ("min", [2.0, 4.0])])
def test_a_reply_is_worth_what_its_tokens_are(tiny, how, wanted, monkeypatch):
    judge = RewardModel(tiny, how)
    judge.head.weight.data[0, 0] = 1.0
    each = torch.tensor([[9.0, 2.0, 3.0, -9.0], [9.0, 9.0, 4.0, -9.0]])  # what the head finds in the first number
    states = torch.zeros(2, 4, 32)
    states[..., 0] = each
    monkeypatch.setattr(read, "hidden", lambda model, ids: states)
    labels = torch.tensor([[IGNORE, 6, 7, IGNORE], [IGNORE, IGNORE, 8, IGNORE]])
    assert judge(torch.ones(2, 4, dtype=torch.long), labels).tolist() == wanted


@pytest.mark.parametrize("how", ["sum", "last", "min"])
def test_padding_and_neighbours_change_no_reward(tiny, pairs, how):
    judge = RewardModel(tiny, how)
    judge.head.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    rows = [{k: r[f"chosen_{k}"] for k in ("input_ids", "labels")} for r in pairs]
    rows[1] = {k: v + v for k, v in rows[1].items()}  # a far longer one
    alone = [scores(judge, [r])[0] for r in rows]
    assert scores(judge, rows, batch=7).tolist() == pytest.approx(alone, abs=1e-4)


def test_a_saved_reward_model_rates_as_before(tiny, pairs, tmp_path):
    judge = RewardModel(tiny, "last")
    judge.head.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    judge.save_pretrained(tmp_path)
    again = RewardModel.from_pretrained(tmp_path)
    assert again.how == "last" and margins(again, pairs).tolist() == pytest.approx(margins(judge, pairs), abs=1e-4)
    assert {f.suffix for f in tmp_path.iterdir()} <= {".json", ".safetensors"}
    (tmp_path / "reward_head.safetensors").unlink()
    with pytest.raises(ValueError, match="has no reward_head.safetensors"):
        RewardModel.from_pretrained(tmp_path)


def test_any_family_can_carry_the_head(pairs):
    from transformers import GPT2Config, GPT2LMHeadModel

    body = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=16, n_layer=1, n_head=2, n_positions=64))
    judge = RewardModel(body)
    train(judge, pairs, 2, PRETRAIN.but(batch=4), loss=bradley_terry)
    assert judge.head.weight.abs().sum() > 0


def test_a_probe_is_a_reward_model_with_a_frozen_body(tiny, pairs):
    judge = RewardModel(tiny)
    tiny.requires_grad_(False)
    before = {k: v.clone() for k, v in tiny.state_dict().items()}
    train(judge, pairs, 5, FINETUNE.but(batch=10), loss=bradley_terry)
    assert judge.head.weight.any() and all(torch.equal(v, before[k]) for k, v in tiny.state_dict().items())


def test_wrong_reward_models_and_rows_are_refused(tiny, pairs):
    with pytest.raises(ValueError, match="how is 'mean', .* 'sum', 'last', 'min'"):
        RewardModel(tiny, "mean")
    with pytest.raises(ValueError, match="a row has no label: mark the tokens of the reply"):
        RewardModel(tiny)(torch.tensor([[5, 6]]), torch.tensor([[IGNORE, IGNORE]]))
    with pytest.raises(ValueError, match="no pairs to agree on"):
        agreement(RewardModel(tiny), pairs.select([]))


# ---- policy gradient


@pytest.fixture
def said():
    """Two replies, of two tokens and of one."""
    return {
        "input_ids": torch.tensor([[5, 6, 7], [5, 8, 0]]),
        "labels": torch.tensor([[IGNORE, 6, 7], [IGNORE, 8, IGNORE]]),
        "advantage": torch.tensor([1.0, -0.5]),
    }


def test_policy_gradient_by_hand(even, said, tokenizer):
    one = -math.log(len(tokenizer))
    # -(1 * 2 tokens + (-0.5) * 1 token) * log p / 2 replies
    assert policy_gradient()(even, said).item() == pytest.approx(-(2 - 0.5) * one / 2, rel=1e-5)


def test_the_penalty_by_hand(even, said, tokenizer):
    reference = deepcopy(even)
    assert policy_gradient(0.2, reference)(even, said).item() == pytest.approx(policy_gradient()(even, said).item())
    ratio = torch.tensor(2.0)  # p_ref / p
    assert k3(torch.tensor(0.0), ratio.log()).item() == pytest.approx(2 - 1 - math.log(2))


def test_k3_is_half_a_square_near_0_and_right_on_average():
    r = torch.tensor([-1e-2, 1e-2], dtype=torch.float64)
    assert k3(-r, torch.zeros(2, dtype=torch.float64)).tolist() == pytest.approx((r**2 / 2).tolist(), rel=1e-2)
    p, q = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]], dtype=torch.float64)
    assert (p * k3(p.log(), q.log())).sum().item() == pytest.approx((p * (p / q).log()).sum().item())  # KL(p || q)
    assert (k3(p.log(), q.log()) >= 0).all()


def test_policy_gradient_follows_the_advantage(tiny, said):
    before = log_p(tiny, said["input_ids"], said["labels"])
    after = log_p(stepped(tiny, lambda m: policy_gradient()(m, said)), said["input_ids"], said["labels"])
    assert ((after - before).sign() == said["advantage"].sign()).all()


def test_the_penalty_pulls_back_to_the_reference(tiny, other, said):
    def distance(model):
        with torch.no_grad():
            now, then = (read.log_probs(m, said["input_ids"], said["labels"]) for m in (model, other))
        return (now - then).abs().sum()

    calm = said | {"advantage": torch.zeros(2)}
    assert distance(stepped(tiny, lambda m: policy_gradient(1.0, other)(m, calm), 0.01)) < distance(tiny)


@pytest.mark.parametrize("kl", [0.0, 0.5])
def test_the_gradient_is_that_of_expected_reward_and_divergence(kl):
    # One token is sampled: every token once, weighted by its probability, is the expectation itself.
    few = tokens.word_tokenizer(["a b c d e f"])
    model, reference = (make_model(few, 32, 1, seed=s).double() for s in (3, 4))
    v = len(few)
    ids = torch.stack([torch.full((v,), 5), torch.arange(v)], 1)  # (V, 2)
    labels = torch.cat([torch.full((v, 1), IGNORE), ids[:, 1:]], 1)
    reward = torch.linspace(-1, 1, v) ** 3
    p, q = (m(input_ids=ids[:1, :1]).logits[0, -1].softmax(-1) for m in (model, reference))  # (V,)
    wanted = gradient(model, -(p * reward).sum() + kl * (p * (p / q.detach()).log()).sum())
    found = 0
    for k in range(v):
        row = {"input_ids": ids[k : k + 1], "labels": labels[k : k + 1], "advantage": reward[k : k + 1]}
        found = found + p[k].item() * gradient(model, policy_gradient(kl, reference)(model, row))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)


def test_a_penalty_without_or_with_a_wrong_reference_is_refused(tiny, said):
    with pytest.raises(ValueError, match="penalty has the weight 0.2, but nothing .* pass reference="):
        policy_gradient(0.2)
    with pytest.raises(ValueError, match="kl is -1"):
        policy_gradient(-1, tiny)
    with pytest.raises(ValueError, match="the reference is the model that is trained"):
        policy_gradient(0.2, tiny)(tiny, said)


# ---- the same numbers from trl


@pytest.fixture
def trl(tmp_path):
    """From the name of a method to its trainer and settings: only asked for its loss, it trains nothing."""
    found = pytest.importorskip("trl", reason="the losses of trl are compared where the package is installed")

    def made(name, model, rows, tokenizer, **settings):
        own = {k: settings.pop(k) for k in ("ref_model", "reward_funcs") if k in settings}
        arguments = getattr(found, f"{name}Config")(
            output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[], disable_tqdm=True, **settings
        )
        trainer = getattr(found, f"{name}Trainer")(
            model=model, args=arguments, train_dataset=rows, processing_class=deepcopy(tokenizer), **own
        )
        trainer.current_gradient_accumulation_steps = 1
        return trainer

    return made


TALK = {"prompt": ["a", "b"], "chosen": ["c", "d"], "rejected": ["d", "c"]}  # to build a trainer with


def agree(model, ours, theirs):
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4, abs=1e-6)
    a, b = gradient(model, ours), gradient(model, theirs)
    assert a.norm() > 1e-4
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * a.norm().item())


def test_dpo_is_that_of_trl(tiny, other, pairs, tokenizer, trl):
    batch = batch_of(pairs, 5)
    trainer = trl("DPO", tiny, Dataset.from_dict(TALK), tokenizer, ref_model=other, beta=0.3)
    rows = []
    for r in pairs.select(range(5)):
        h = r["chosen_labels"].count(IGNORE)
        rows.append({"prompt_ids": r["chosen_input_ids"][:h]} | {f"{s}_ids": r[f"{s}_input_ids"][h:] for s in SIDES})
    inputs = trainer.data_collator(rows)
    agree(tiny, dpo(0.3, other)(tiny, batch), trainer.compute_loss(tiny, inputs))


def test_bradley_terry_is_that_of_trl(tiny, pairs, tokenizer, trl):
    judge = RewardModel(tiny, "last")  # where transformers reads a score
    judge.head.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    theirs = LlamaForSequenceClassification(deepcopy(tiny.config))
    theirs.config.num_labels, theirs.score, theirs.model = 1, judge.head, tiny.model
    trainer = trl("Reward", theirs, Dataset.from_dict(TALK), tokenizer)
    part = pairs.select(range(5))
    inputs = trainer.data_collator([{f"{s}_ids": r[f"{s}_input_ids"] for s in SIDES} for r in part])
    agree(judge, bradley_terry(judge, batch_of(part, 5)), trainer.compute_loss(theirs, dict(inputs)))


@pytest.mark.parametrize("kl", [0.0, 0.2])
def test_policy_gradient_is_that_of_trl(tiny, other, said, tokenizer, trl, kl):
    # Its loss type without a division by lengths; it divides by the most tokens a reply may have.
    trainer = trl(
        "GRPO", tiny, Dataset.from_dict({"prompt": ["a", "b"]}), tokenizer, reward_funcs=lambda completions, **_: [0.0],
        loss_type="dr_grpo", max_completion_length=2, num_generations=2, per_device_train_batch_size=2,
    )  # fmt: skip
    inputs = {
        "prompt_ids": said["input_ids"][:, :1], "prompt_mask": torch.ones(2, 1, dtype=torch.long),
        "completion_ids": said["input_ids"][:, 1:], "completion_mask": (said["labels"][:, 1:] != IGNORE).long(),
        "advantages": said["advantage"],
    }  # fmt: skip
    trainer.beta = kl  # given as a setting, it would look for the reference among the models of the hub
    if kl:
        with torch.no_grad():
            inputs["ref_per_token_logps"] = read.log_probs(other, said["input_ids"], said["labels"])[:, 1:]
    ours = policy_gradient(kl, other if kl else None)(tiny, said)
    theirs = trainer.compute_loss(tiny, inputs) * 2
    # For a fresh sample its value has a ratio of 1 where ours has the log-probability; the gradients are the same.
    torch.testing.assert_close(gradient(tiny, theirs), gradient(tiny, ours), rtol=1e-3, atol=1e-5)
