"""Three rules that make a base model answer without any training (Hewitt et al., 2024), as logits processors.

end     the longer the reply, the likelier its end: a bonus for `<eos>` that grows with every token
words   a handful of tokens are made likelier or less likely, everywhere
seen    what has been said, in the prompt or in the reply, becomes less likely; or in the reply alone, which is ours
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from .. import check


class EndRamp(LogitsProcessor):
    """Add `strength * n / length` to the logit of `<eos>` at position n of the reply, and `strength` from `length` on.

    In the paper the strength is 15 and the length 250 tokens, and there is no bonus after that.

    Args:
        start: the number of tokens in front of the reply.
    """

    def __init__(self, eos_token_id: int, start: int, strength: float, length: int):
        self.eos_token_id = check.integer("eos_token_id", eos_token_id, at_least=0)
        self.start = check.integer("start", start, at_least=0)
        self.strength = check.number("strength of the end rule", strength)
        self.length = check.integer("length", length, at_least=1)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """input_ids (B, T), scores (B, V)."""
        n = input_ids.shape[1] - self.start
        scores = scores.clone()
        scores[:, self.eos_token_id] += self.strength * min(n / self.length, 1.0)
        return scores


class TokenBias(LogitsProcessor):
    """Add a constant to the logits of a few tokens, at every position."""

    def __init__(self, biases: Mapping[int, float]):
        self.biases = {
            check.integer("token id", i, at_least=0): check.number(f"bias of token {i}", b) for i, b in biases.items()
        }

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """input_ids (B, T), scores (B, V)."""
        if self.biases and max(self.biases) >= scores.shape[1]:
            raise ValueError(
                f"there is a bias for token {max(self.biases)}, but the model has {scores.shape[1]} tokens"
            )
        scores = scores.clone()
        for i, b in self.biases.items():
            scores[:, i] += b
        return scores


class SeenPenalty(LogitsProcessor):
    """Subtract `strength` from the logit of every token that is in the prompt or in the reply so far.

    In the paper the strength is 1.5. Unlike `RepetitionPenaltyLogitsProcessor`, it subtracts and does not divide.

    Args:
        pad_token_id: what stands in front of shorter prompts, if anything: padding has not been said.
        start: the number of tokens in front of what counts as said. 0 counts the prompt, as the paper does; where the
            reply begins, its own tokens alone.
    """

    def __init__(self, strength: float, pad_token_id: int | None = None, start: int = 0):
        self.strength = check.number("strength of the seen rule", strength)
        self.pad_token_id = pad_token_id
        self.start = check.integer("start", start, at_least=0)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """input_ids (B, T), scores (B, V)."""
        input_ids = input_ids[:, self.start :]  # (B, T - start)
        said = torch.ones_like(input_ids)
        if self.pad_token_id is not None:  # the same token may stand behind the padding too, and is said there
            said = (input_ids != self.pad_token_id).cumsum(1).clamp(max=1)
        seen = torch.zeros_like(scores).scatter_add_(1, input_ids, said.to(scores.dtype))
        return scores - self.strength * seen.clamp(max=1)  # once, however often the token has been said


@dataclass(frozen=True)
class Rules:
    """How strong each rule is. A strength of 0, or no biases, leaves that rule out."""

    end: float = 0.0  # added to the logit of <eos> at the end of the ramp
    words: Mapping[str, float] = field(default_factory=dict)  # token -> what is added to its logit
    seen: float = 0.0  # subtracted from the logits of tokens that were said
    length: int = 30  # tokens over which the end rule rises; ours are replies of 15 to 25 tokens
    prompt: bool = True  # the seen rule counts the prompt's tokens too, as in the paper; False: the reply's alone

    def __post_init__(self):
        check.number("strength of the end rule", self.end)
        check.number("strength of the seen rule", self.seen)
        check.integer("length", self.length, at_least=1)
        for word, bias in self.words.items():
            check.number(f"bias of {word!r}", bias)

    def only(self, *names: str) -> Rules:
        """The same rules, but all that are not in `names` ("end", "words", "seen") are left out."""
        for name in names:
            check.one_of("rule", name, NAMES)
        left_out = {"end": 0.0, "words": {}, "seen": 0.0}
        return replace(self, **{name: none for name, none in left_out.items() if name not in names})

    def scaled(self, words: float) -> Rules:
        """The same rules with all biases multiplied by `words`."""
        return replace(self, words={w: b * words for w, b in self.words.items()})


NAMES = ("end", "words", "seen")


def processors(rules: Rules, tokenizer: PreTrainedTokenizerBase) -> Callable[[int], LogitsProcessorList]:
    """What `answer.generate` takes as `logits_processor`: from where the reply starts to the processors of the rules.

    Raises:
        ValueError: a bias is for a word that is not one token of this tokenizer.
    """
    known = tokenizer.get_vocab()
    for word in rules.words:
        if word not in known:
            raise ValueError(f"there is a bias for {word!r}, which is no token of this tokenizer")
    biases = {known[w]: b for w, b in rules.words.items()}

    def make(start: int) -> LogitsProcessorList:
        made = LogitsProcessorList()
        if biases:
            made.append(TokenBias(biases))
        if rules.seen:
            made.append(SeenPenalty(rules.seen, tokenizer.pad_token_id, 0 if rules.prompt else start))
        if rules.end:
            made.append(EndRamp(tokenizer.eos_token_id, start, rules.end, rules.length))
        return made

    return make


def permuted(rules: Rules, tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> Rules:
    """The same biases, each on a random token instead; special tokens and the biased ones are excepted."""
    others = sorted(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens) - set(rules.words))
    if len(others) < len(rules.words):
        raise ValueError(f"there are {len(rules.words)} biases, and only {len(others)} other tokens to move them to")
    drawn = check.rng(seed, "rules.permuted").choice(len(others), size=len(rules.words), replace=False)
    return replace(rules, words={others[i]: b for i, b in zip(drawn, rules.words.values(), strict=True)})
