"""Groups of samples, their rewards and advantages; and a policy gradient in ten lines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from alignlab.models import tokens
from alignlab.models.llama import make_model
from alignlab.models.reward import RewardModel
from alignlab.models.tokens import IGNORE
from alignlab.training.losses import policy_gradient
from alignlab.training.rollouts import advantages, rollout
from alignlab.training.train import FINETUNE, Optimiser

PROMPTS = ["yes or no ?", "are you sure ?", "no or yes ?"]


@pytest.fixture(scope="module")
def words():
    return tokens.word_tokenizer([*PROMPTS, "perhaps"])


@pytest.fixture
def policy(words):
    return make_model(words, 32, 1, seed=0)


def begins_with_yes(said):
    return [float(r.startswith("yes")) for r in said["reply"]]


# ---- advantages


def test_advantages_by_hand():
    found = advantages([[0, 1], [3, 1]], normalise=False)
    assert found.tolist() == [[-0.5, 0.5], [1, -1]]
    s = 1 / 2**0.5  # half a difference, by the standard deviation of two numbers
    np.testing.assert_allclose(advantages([[0, 1], [3, 1]]), [[-s, s], [s, -s]], rtol=1e-3)


def test_a_group_in_which_all_are_equal_teaches_nothing():
    rewards = np.full((2, 8), 0.1)
    rewards[1, 0] = 0.2
    found = advantages(rewards)
    assert np.abs(found[0]).max() < 1e-9 and found[1, 0] > 2
    np.testing.assert_allclose(found.sum(1), 0, atol=1e-9)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([[1.0], [2.0]], r"shape \(2, 1\): pass \(prompts, samples\) with at least 2"),
        ([1.0, 2.0], r"shape \(2,\)"),
        ([[0, 1], [0, np.nan]], "reward of sample 1 for prompt 1 is nan: every reward must be finite"),
        ([[np.inf, 1], [0, 0]], "reward of sample 0 for prompt 0 is inf"),
    ],
)
def test_wrong_rewards_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        advantages(wrong)


# ---- rollouts


def test_a_rollout_is_a_batch(policy, words):
    made = rollout(policy, words, PROMPTS, 4, begins_with_yes, seed=1, max_new_tokens=5)
    assert made["prompt"] == [p for p in PROMPTS for _ in range(4)] and len(made["reply"]) == 12
    ids, labels = made["input_ids"], made["labels"]
    heads = tokens.prompt_ids(made["prompt"], words)
    for row, own, head, text, stopped in zip(ids, labels, heads, made["reply"], made["stopped"], strict=True):
        assert row[: len(head)].tolist() == head and (own[: len(head)] == IGNORE).all()
        reply = row[own != IGNORE]
        assert (reply == own[own != IGNORE]).all() and words.decode(reply, skip_special_tokens=True) == text
        assert bool(stopped) == (reply[-1] == words.eos_token_id) and (stopped or len(reply) == 5)
    assert made["stopped"].dtype == torch.bool and made["stopped"].any()
    assert made["reward"].tolist() == begins_with_yes(made)
    wanted = advantages(made["reward"].reshape(3, 4)).flatten()
    assert made["advantage"].tolist() == pytest.approx(wanted.tolist(), abs=1e-6)
    assert not any(v.requires_grad for v in made.values() if isinstance(v, torch.Tensor))


def test_a_rollout_is_its_seed_s(policy, words):
    one, same, another = (rollout(policy, words, PROMPTS, 4, begins_with_yes, seed=s) for s in (1, 1, 2))
    assert one["reply"] == same["reply"] != another["reply"]
    assert len(set(one["reply"])) > 6  # the samples of a prompt differ


def test_a_reward_model_is_a_reward(policy, words):
    judge = RewardModel(make_model(words, 32, 1, seed=1))
    judge.head.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    made = rollout(policy, words, PROMPTS, 4, lambda said: judge(said["input_ids"], said["labels"]), seed=1)
    assert made["reward"].std() > 0.1 and not made["reward"].requires_grad


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (lambda said: [1.0] * 3, r"rewards have the shape \(3,\) for 6 samples: one for each"),
        (lambda said: torch.ones(6, 1), r"rewards have the shape \(6, 1\) for 6 samples"),
        (lambda said: [0, 0, 0, float("nan"), 0, 0], "reward of sample 1 for prompt 1 is nan"),
    ],
)
def test_a_reward_that_is_not_one_finite_number_per_sample_is_refused(policy, words, reward, said):
    with pytest.raises(ValueError, match=said):
        rollout(policy, words, PROMPTS, 2, reward, seed=0, max_new_tokens=2)


def test_a_group_of_one_is_refused_before_anything_is_said(policy, words):
    with pytest.raises(ValueError, match="samples is 1, but it must be at least 2"):
        rollout(policy, words, PROMPTS, 1, begins_with_yes, seed=0)


# ---- in the open


@pytest.mark.parametrize("seed", [0, 1])
def test_reinforce_in_ten_lines(words, seed):
    policy = make_model(words, 32, 1, seed=seed)
    optimiser = Optimiser(policy, FINETUNE.but(lr=1e-2), steps=30)
    loss, marks = policy_gradient(), []
    for step in range(30):
        said = rollout(policy, words, PROMPTS, 8, begins_with_yes, seed=step, max_new_tokens=3)
        optimiser.step(loss(policy, said))
        marks.append(said["reward"].mean().item())
    assert np.mean(marks[:3]) < 0.3 and np.mean(marks[-3:]) > 0.9
