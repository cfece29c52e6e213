"""Wrong responses that look like the right ones, to be compared with them by a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .letters import KNOWN_SKILLS, LETTERS, SKILLS, spell
from .people import World
from .tasks import fact_task, skill_task, wrong


def of(
    world: World, task: Mapping, rng: np.random.Generator, skills: Sequence[str] = KNOWN_SKILLS
) -> dict[str, str]:
    """Two wrong responses to a task. Both are about the person or the string that it is about, and in its manner.

    To be compared with the right response by a model: whoever merely copies a name or a string can't tell them apart.

    Args:
        task: of `about` or `examples`; its question and its statement in the first wording.
        skills: at least two, where the task is about a string.

    Returns:
        value      the right response, but the asked value is another of its kind: of letters the answer for the string
                   that begins one letter later
        question   the right response to another question: about the next fact, or the next skill of `skills`
    """
    if task["person"] >= 0:
        k, n = world.attributes.index(task["family"]), len(world.attributes)
        other = wrong(world, task, rng)
        right, asked = (fact_task(world, task["person"], i, world.attributes[i], 0) for i in (k, (k + 1) % n))
    else:
        s = "".join(w for w in task["prompt"].split() if w in LETTERS)
        other = spell(SKILLS[task["family"]](s[1:] + s[0]))
        following = skills[(list(skills).index(task["family"]) + 1) % len(skills)]
        right, asked = skill_task(task["family"], s, 0), skill_task(following, s, 0)
    return {
        "value": task["response"].replace(f" {task['answer']} .", f" {other} .", 1),
        "question": task["response"].replace(right["response"], asked["response"]),
    }
