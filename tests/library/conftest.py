"""What the tests of the library share: tiny worlds and one tiny model that knows what it was taught."""

from __future__ import annotations

from types import SimpleNamespace

import alignlab  # noqa: F401 -- before torch: it says how threads wait
import pytest
import torch
from alignlab.models import tokens
from alignlab.models.llama import make_model
from alignlab.training.train import FINETUNE, PRETRAIN, train
from alignlab.worlds import biographies, tasks
from alignlab.worlds.biographies import Presentation
from alignlab.worlds.people import make_world
from datasets import Dataset

from tests.library.subwords import PAIRS, byte_level, knowledge_pairs


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def world():
    return make_world(people=8, attributes=("city", "subject", "company"), seed=3)


@pytest.fixture(scope="session")
def tokenizer(world):
    return tokens.word_tokenizer(biographies.words(world))


@pytest.fixture
def tiny(tokenizer):
    """A model that has learned nothing: one layer, 32 wide."""
    return make_model(tokenizer, width=32, depth=1, seed=0)


@pytest.fixture(scope="session")
def taught(world, tokenizer):
    """A model that has read some biographies and was then taught to answer half of the questions. Do not change it."""
    web = biographies.write(world, Presentation(), people=range(6), seed=1)
    model = make_model(tokenizer, width=32, depth=1, seed=0)
    train(model, tokens.documents(web, tokenizer), 120, PRETRAIN.but(batch=6), seed=0)
    pairs = biographies.questions(world)
    base = make_model(tokenizer, width=32, depth=1, seed=0)
    base.load_state_dict(model.state_dict())
    train(model, tokens.replies(pairs.select(range(12)), tokenizer), 60, FINETUNE.but(batch=12, lr=1e-2), seed=0)
    return SimpleNamespace(base=base, model=model, web=web, pairs=pairs)


@pytest.fixture(scope="session")
def asked():
    """A world, and one question of each of three kinds about it."""
    world = make_world(3, ("city", "subject"), values_each=10, seed=0)
    return world, tasks.about(world, [0], ("reverse",), ["kmp"], wordings=(0,))


@pytest.fixture(autouse=True)
def as_a_reader_has_it(monkeypatch):
    monkeypatch.delenv("ALIGNLAB_DOWNLOAD", raising=False)


@pytest.fixture(scope="session")
def bpe():
    return byte_level()


@pytest.fixture(scope="session")
def knowing(bpe):
    """It answers the five questions in the chat template, and completes them in plain text. Do not change it."""
    model = make_model(bpe, width=64, depth=1, seed=0)
    rows = [tokens.replies(PAIRS, bpe, template) for template in (True, False)]
    plain = tokens.replies(knowledge_pairs(), bpe, template=False)
    both = Dataset.from_dict(
        {k: [x for r in (*rows, plain) for x in r[k]] for k in ("input_ids", "labels")},
    )
    train(model, both, 150, FINETUNE.but(batch=15, lr=1e-2), seed=0)
    return model


@pytest.fixture(scope="session")
def folders(knowing, bpe, tmp_path_factory):
    """An aligned model with a chat template and a base without one, as folders."""
    place = tmp_path_factory.mktemp("models")
    aligned, base = place / "tiny-Instruct", place / "tiny"
    knowing.save_pretrained(aligned)
    bpe.save_pretrained(aligned)
    make_model(bpe, width=64, depth=1, seed=1).save_pretrained(base)
    byte_level(template=None).save_pretrained(base)
    return base, aligned
