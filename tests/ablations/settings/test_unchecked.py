"""Settings without pydantic: what they say and hold is what they do with it."""

import json
import subprocess
import sys

import pydantic
import pytest

from trans4init.ablations.settings import base as settings
from trans4init.ablations.settings import unchecked as unchecked_settings

TELL = """
import copy
import json
import pickle
import sys
from pathlib import Path

if sys.argv[1] == "without":
    sys.modules["pydantic"] = None

from trans4init.ablations.data import classification, images, modular, scan, sequences, text, translation
from trans4init.ablations.settings.model import ModelSize, TransformerConfig
from trans4init.ablations.nets import list_nets, net_class
from trans4init.ablations.nets.mlp import FourierSize, MlpChoice
from trans4init.ablations.settings.base import BaseModel, ValidationError
from trans4init.ablations.settings.training import TrainingConfig
from trans4init.ablations.settings.error_sentence import sentence

preset = TransformerConfig.preset
longer = TrainingConfig(steps=20, batch=3, schedule="constant", workers=2, log_every=10)
settings = {
    **{name: preset(name) for name in ("toy", "nano", "base", "gpt2-small", "vit-tiny")},
    "changed": preset("nano", position="rope", bias=True, dropout=0.0),
    "size": ModelSize(layers=1, width=8, heads=2),
    "training": TrainingConfig(steps=10, batch=2),
    "longer training": longer,
    "copied": longer.model_copy(update={"workers": 0, "clip": 2.0}),
    "text": text.TextConfig(),
    "located": text.TextConfig(source="a.txt", evaluation_tokens=5).located(Path("/somewhere")),
    "copy": sequences.CopyConfig(longest=4),
    "addition": sequences.AdditionConfig(),
    "modular": modular.ModularConfig(modulus=97),
    "translation": translation.TranslationConfig(to_language="fr"),
    "classification": classification.ClassificationConfig(),
    "scan": scan.ScanConfig(),
    "images": images.ImagesConfig(),
    "mlp": MlpChoice(hidden=(7,), activation="sin"),
    "fourier": FourierSize(frequencies=3).model_copy(update={"hidden": (4, 4)}),
    **{name: net_class(name).Size() for name in list_nets()},
}


def told(one):
    twin = pickle.loads(pickle.dumps(copy.deepcopy(one)))
    kinds = (bool, int, float, str, tuple, type(None))
    return {
        "words": str(one),
        "dump": repr(one.model_dump()),
        "json": repr(one.model_dump(mode="json")),
        "given": sorted(one.model_fields_set),
        "values": repr([getattr(one, name) for name in type(one).model_fields]),
        "defaults": {
            name: repr(field.default) if isinstance(field.default, kinds) else "needed"
            for name, field in type(one).model_fields.items()
        },
        "equals": [name for name, other in settings.items() if other == one and hash(other) == hash(one)],
        "twin": twin == one and twin.model_fields_set == one.model_fields_set,
    }


def said(model, **words):
    try:
        model(**words)
    except ValidationError as error:
        return [error.errors()[0]["msg"], sentence(error, model, "here")]
    return []


changed = TrainingConfig(steps=1, batch=1)
try:
    changed.steps = 2
except (ValidationError, AttributeError):
    pass
toy = {"layers": 1, "width": 8, "heads": 4}
broken = [
    said(ModelSize, layers=1, width=9, heads=2),
    said(ModelSize, **toy, key_value_heads=3),
    said(ModelSize, **toy, randomised_positions=5),
    said(ModelSize, **toy, image_size=5),
    said(TransformerConfig, **toy, kind="image"),
    said(TransformerConfig, **toy, pooling="first"),
    said(TrainingConfig, steps=1, batch=1, schedule="inverse-square-root", warmup_steps=0),
    said(translation.TranslationConfig, to_language="de"),
    said(sequences.SortConfig, longest=30),
    said(modular.ModularConfig, modulus=9)[:1],
]
print(json.dumps([BaseModel.__module__, {name: told(one) for name, one in settings.items()}, broken, changed.steps]))
"""


def tell(how):
    done = subprocess.run([sys.executable, "-P", "-c", TELL, how], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_they_say_and_hold_the_same_and_refuse_for_the_same_reasons():
    with_pydantic, without = tell("with"), tell("without")
    assert (with_pydantic[0], without[0]) == ("pydantic.main", "trans4init.ablations.settings.unchecked")
    for name, known in with_pydantic[1].items():
        assert without[1][name] == known, name
    assert all(without[2])
    assert without[2:] == with_pydantic[2:]


def test_pydantic_checks_where_it_is_installed():
    for name in settings.__all__:
        assert getattr(settings, name) is getattr(pydantic, name)
        assert hasattr(unchecked_settings, name)


class Sizes(unchecked_settings.BaseModel):
    count: int
    width: int = 3


@pytest.mark.parametrize(("words", "named"), [({}, "count"), ({"count": 1, "widht": 2}, "widht")])
def test_a_name_that_is_unknown_or_missing_raises(words, named):
    with pytest.raises(TypeError, match=named):
        Sizes(**words)


def test_a_value_can_not_be_set():
    with pytest.raises(AttributeError):
        Sizes(count=1).count = 2
