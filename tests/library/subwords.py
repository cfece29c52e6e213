"""A tokenizer like that of SmolLM2 and Qwen, and five facts for tiny models that have one.

It is a byte-level BPE with the same traps: spaces inside tokens, a template that ends in a newline, no pad token, many
end tokens.
"""

from __future__ import annotations

import shutil

from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers import processors as post
from transformers import PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
)
FACTS = [
    ("France", "Paris"),
    ("Japan", "Tokyo"),
    ("Kenya", "Nairobi"),
    ("Peru", "Lima"),
    ("the mountains of Nepal", "Kathmandu"),
]
PAIRS = Dataset.from_dict(
    {
        "prompt": [f"What is the capital of {country}?" for country, _ in FACTS],
        "response": [f"It is {city}." for _, city in FACTS],
        "answer": [city for _, city in FACTS],
    }
)


def byte_level(template=TEMPLATE, words=""):
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = post.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator([*PAIRS["prompt"], *PAIRS["response"], words], trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<|im_start|>", eos_token="<|im_end|>")
    made.chat_template = template
    return made


def form(prompt):
    return f"Question: {prompt}\nAnswer:"


def knowledge_pairs():
    return Dataset.from_dict({"prompt": [form(p) for p in PAIRS["prompt"]], "response": PAIRS["answer"]})


def copied(folder, place):
    return shutil.copytree(folder, place / "copy")


def said(capfd):
    """What a reader saw, and nothing on stderr."""
    out, err = capfd.readouterr()
    assert err == "", err
    return out


def cut(file, share):
    """Leave the beginning of a file."""
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
