"""Loading a model folder: files that do not fit together give one sentence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.data import write_telling_model
from imgcap.dataset.prepared import PreparedFolder
from imgcap.errors import ImgcapError, UsageError
from imgcap.files import read_json, write_json
from imgcap.model.confidence import Calibration
from imgcap.model.folder import Model, check_encoder, load_model_folder, save_decoder
from imgcap.model.search import SearchOptions
from imgcap.model.store import CONFIG_FILE, DECODER_FILE, ENCODER_FILE, VOCABULARY_FILE
from imgcap.text.vocabulary import SPECIAL_WORDS

CPU = torch.device("cpu")


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the model without its encoder, for tests that damage it."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (CONFIG_FILE, VOCABULARY_FILE, DECODER_FILE):
        shutil.copyfile(model_folder / name, copy / name)
    return copy


def edit_config(part: str | None = None, **changes: object) -> Callable[[Path], None]:
    """Set keys of `config.json`, or of one of its parts; a value of `...` removes the key."""

    def edit(folder: Path) -> None:
        data = read_json(folder / CONFIG_FILE)
        changed = data if part is None else data[part]
        changed.update(changes)
        for key in [key for key, value in changes.items() if value is ...]:
            del changed[key]
        write_json(folder / CONFIG_FILE, data)

    return edit


def edit_words(change: Callable[[list[str]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        write_json(folder / VOCABULARY_FILE, {"words": change(read_json(folder / VOCABULARY_FILE)["words"])})

    return edit


def edit_weights(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        weights = {name: tensor.clone() for name, tensor in load_file(folder / DECODER_FILE).items()}
        save_file(change(weights), folder / DECODER_FILE)

    return edit


def fill(name: str, value: float) -> Callable[[Path], None]:
    def change(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        weights[name].view(-1)[-1] = value
        return weights

    return edit_weights(change)


def test_a_loaded_model_equals_the_trained_one(model_folder: Path) -> None:
    model = load_model_folder(model_folder, CPU)
    assert model.folder == model_folder
    assert model.encoder_file == model_folder / ENCODER_FILE
    assert model.config.name == "walls"
    assert model.config.search == SearchOptions(beam_size=2)
    assert len(model.vocabulary) == model.config.decoder.vocabulary_size
    assert not model.decoder.training
    assert not any(parameter.requires_grad for parameter in model.decoder.parameters())
    for name, tensor in load_file(model_folder / DECODER_FILE).items():
        assert torch.equal(model.decoder.state_dict()[name], tensor)


def test_a_model_saved_and_loaded_writes_the_same_captions(
    model_folder: Path, tmp_path: Path, prepared: PreparedFolder
) -> None:
    model = load_model_folder(model_folder, CPU)
    save_decoder(tmp_path, model.decoder.state_dict(), model.vocabulary, model.config)
    again = load_model_folder(tmp_path, CPU)
    assert (again.config, again.vocabulary) == (model.config, model.vocabulary)
    features = torch.from_numpy(prepared.features[[0, 1, 2]])
    assert list(again.search(features, model.config.search)) == list(model.search(features, model.config.search))


def test_half_precision_weights_are_used_in_single_precision(folder: Path) -> None:
    edit_weights(lambda weights: {name: tensor.half() for name, tensor in weights.items()})(folder)
    model = load_model_folder(folder, CPU)
    assert {tensor.dtype for tensor in model.decoder.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("count", [0, 1, 127, 128, 129, 300])
def test_search_accepts_any_number_of_features_and_keeps_their_order(
    model_folder: Path, prepared: PreparedFolder, tmp_path: Path, count: int
) -> None:
    model = load_model_folder(write_telling_model(model_folder, prepared, tmp_path / "telling"), CPU)
    options = SearchOptions(beam_size=1, max_length=3)
    features = torch.from_numpy(prepared.features[[i % 24 for i in range(count)]])
    found = list(model.search(iter(features), options))
    assert len(found) == count
    first = [hypotheses[0] for hypotheses in found[:24]]
    assert len({hypothesis.log_probability for hypothesis in first}) == len(first)
    for i, [hypothesis] in enumerate(found):
        assert hypothesis.ids == first[i % 24].ids
        assert hypothesis.log_probability == pytest.approx(first[i % 24].log_probability, abs=1e-3)


def test_a_model_from_before_confidence_and_sampling_can_be_loaded(folder: Path) -> None:
    edit_config(confidence=...)(folder)
    new = ("num_captions", "sample", "temperature", "top_p", "seed", "ban")
    edit_config("search", **dict.fromkeys(new, ...))(folder)
    config = load_model_folder(folder, CPU).config
    assert config.confidence is None
    assert config.search == SearchOptions(beam_size=2)


def test_calibration_and_search_options_are_saved_in_the_config(folder: Path, tmp_path: Path) -> None:
    model = load_model_folder(folder, CPU)
    config = replace(
        model.config,
        confidence=Calibration((1.0, 2.0, 3.0), 60, 0.5, 0.02),
        search=SearchOptions(sample=True, top_p=0.9, ban=("wall", "red")),
    )
    save_decoder(folder, model.decoder.state_dict(), model.vocabulary, config)
    assert load_model_folder(folder, CPU).config == config


def test_banned_words_are_not_written(model_folder: Path, prepared: PreparedFolder) -> None:
    model = load_model_folder(model_folder, CPU)
    features = torch.from_numpy(prepared.features[[0, 1]])
    words = model.vocabulary.words[len(SPECIAL_WORDS) :]
    said = model.text(next(model.search(features, SearchOptions()))[0]).split()[0]
    options = SearchOptions(num_captions=9, ban=(said.upper(), "zebra"))
    texts = [model.text(h) for found in model.search(features, options) for h in found]
    assert len(texts) == 18
    assert not any(said in text.split() for text in texts)
    [found] = model.search(features[:1], SearchOptions(max_length=3, num_captions=3, ban=words[1:]))
    assert {model.text(h) for h in found} == {" ".join([words[0]] * n) for n in (1, 2, 3)}
    with pytest.raises(UsageError, match="Every word that the model 'walls' knows is banned"):
        list(model.search(features, SearchOptions(ban=words)))


def test_samples_depend_on_the_seeds_of_the_images(model_folder: Path, prepared: PreparedFolder) -> None:
    model = load_model_folder(model_folder, CPU)
    features = torch.from_numpy(prepared.features[[i % 24 for i in range(140)]])  # more than are searched at once
    options = SearchOptions(sample=True, max_length=8)
    numbered = list(model.search(features, options))
    assert [found[0].ids for found in model.search(features, options, range(140))] == [f[0].ids for f in numbered]
    alone = next(model.search(features[135:136], options, [135]))
    assert alone[0].ids == numbered[135][0].ids
    assert len({found[0].ids for found in numbered}) > 24
    with pytest.raises(ValueError, match="shorter"):
        list(model.search(features, options, range(139)))


CONFIG_DAMAGES: dict[str, Callable[[Path], object]] = {
    "no version": edit_config(format_version=...),
    "no tokenizer": edit_config(tokenizer=...),
    "no decoder": edit_config(decoder=...),
    "no search": edit_config(search=...),
    "no name": edit_config(name=...),
    "unknown key": edit_config(colour="red"),
    "unknown search key": edit_config("search", colour="red"),
    "unknown decoder key": edit_config("decoder", layers=2),
    "no vocabulary size": edit_config("decoder", vocabulary_size=...),
    "decoder a list": edit_config(decoder=[1, 2]),
    "search text": edit_config(search="beam"),
    "beam size text": edit_config("search", beam_size="five"),
    "dropout text": edit_config("decoder", dropout="half"),
    "temperature text": edit_config("search", temperature="hot"),
    "confidence text": edit_config(confidence="high"),
    "confidence of other parts": edit_config(confidence={"weights": [1, 2, 3]}),
    "a list": lambda folder: write_json(folder / CONFIG_FILE, [1, 2]),
    "null": lambda folder: write_json(folder / CONFIG_FILE, None),
    "vocabulary a list": lambda folder: write_json(folder / VOCABULARY_FILE, ["<pad>"]),
    "vocabulary without words": lambda folder: write_json(folder / VOCABULARY_FILE, {}),
    "words null": edit_words(lambda _words: None),
}

OTHER_DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "another format version": (edit_config(format_version=2), "another version of imgcap"),
    "another tokenizer": (edit_config(tokenizer="imgcap-0"), "another version of imgcap"),
    "config torn": (lambda folder: os.truncate(folder / CONFIG_FILE, 50), r"config\.json is not valid JSON"),
    "config gone": (lambda folder: (folder / CONFIG_FILE).unlink(), r"config\.json cannot be read"),
    "vocabulary torn": (
        lambda folder: os.truncate(folder / VOCABULARY_FILE, 50),
        r"vocabulary\.json is not valid JSON",
    ),
    "vocabulary gone": (lambda folder: (folder / VOCABULARY_FILE).unlink(), r"vocabulary\.json cannot be read"),
    "word too few": (edit_words(lambda words: words[:-1]), r"has \d+ words, but its decoder has \d+\."),
    "word too many": (edit_words(lambda words: [*words, "zebra"]), r"has \d+ words, but its decoder has \d+\."),
    "a word a list": (edit_words(lambda words: [*words[:-1], ["wall"]]), r"vocabulary\.json .* nothing but words"),
    "word twice": (edit_words(lambda words: [*words[:-1], words[-2]]), "word twice"),
    "special words gone": (edit_words(lambda words: words[4:]), "must begin with"),
    "beam of none": (edit_config("search", beam_size=0), "beam size"),
    "confidence of other weights": (
        edit_config(confidence={"weights": [1], "images": 50, "agreeing": 0.5, "calibration_error": 0.1}),
        "no calibration with the values",
    ),
    "ban a number": (edit_config("search", ban=[5]), "single word can be banned, not 5"),
    "size none": (edit_config("decoder", hidden_size=0), "no decoder with the sizes"),
    "size negative": (edit_config("decoder", embedding_size=-3), "no decoder with the sizes"),
    "size text": (edit_config("decoder", vocabulary_size="many"), "no decoder with the sizes"),
    "size not whole": (edit_config("decoder", hidden_size=2.5), "no decoder with the sizes"),
    "dropout too large": (edit_config("decoder", dropout=7), "dropout 7"),
    "size another": (edit_config("decoder", hidden_size=17), r"does not fit its settings: size mismatch for .*"),
    "size beyond memory": (edit_config("decoder", hidden_size=10**12), "does not fit its settings: "),
    "weights text": (lambda folder: (folder / DECODER_FILE).write_text("weights" * 9), "does not fit its settings: "),
    "weights empty": (lambda folder: (folder / DECODER_FILE).write_text(""), "does not fit its settings: "),
    "weights torn": (lambda folder: os.truncate(folder / DECODER_FILE, 999), "does not fit its settings: "),
    "weights gone": (lambda folder: (folder / DECODER_FILE).unlink(), "does not fit its settings: No such file"),
    "a tensor gone": (
        edit_weights(lambda weights: {name: t for name, t in weights.items() if name != "output.bias"}),
        r"does not fit its settings: Missing key.*output\.bias",
    ),
    "a tensor too many": (
        edit_weights(lambda weights: {**weights, "attention.weight": torch.zeros(1)}),
        r"does not fit its settings: Unexpected key.*attention\.weight",
    ),
    "a weight NaN": (fill("lstm.weight_hh_l0", torch.nan), "not numbers"),
    "a weight infinite": (fill("output.bias", -torch.inf), "not numbers"),
    "a statistic NaN": (fill("feature_mean", torch.nan), "not numbers"),
}


@pytest.mark.parametrize("name", [*CONFIG_DAMAGES, *OTHER_DAMAGES])
def test_a_damaged_model_is_one_sentence(folder: Path, name: str) -> None:
    damage, message = OTHER_DAMAGES.get(name) or (CONFIG_DAMAGES[name], "settings of the model .* are damaged")
    damage(folder)
    with pytest.raises(ImgcapError, match=message) as caught:
        load_model_folder(folder, CPU)
    assert "\n" not in str(caught.value)


def test_features_of_another_encoder_are_refused(model_folder: Path) -> None:
    model: Model = load_model_folder(model_folder, CPU)
    check_encoder(model, model.config.encoder_fingerprint, Path("prepared"))
    with pytest.raises(ImgcapError, match="prepared come from another encoder than the model 'walls'") as caught:
        check_encoder(model, "0" * 64, Path("prepared"))
    assert f"--encoder {model_folder}" in caught.value.hint


def test_loading_a_model_does_not_import_slow_parts_of_torch(model_folder: Path) -> None:
    program = (
        "import sys; from imgcap import load_model; load_model(sys.argv[1], 'cpu'); "
        "print(*({'sympy', 'torchvision', 'sacrebleu'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program, model_folder], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
