"""A model that is asked with a cache and in batches, beside the plain way: transformers' generate, a text at a time."""

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import repeaters  # noqa: E402

from darkvocab.errors import CorruptFile, InvalidInput, MissingFile  # noqa: E402
from darkvocab.verification.frames import encoded, read_frames  # noqa: E402
from darkvocab.verification.model import PLACES, Model, _templated, open_model  # noqa: E402

TOKENS = np.array([3, 65, 200, 305, 319])
pytestmark = pytest.mark.slow  # torch and transformers take seconds to import


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return repeaters.saved(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def opened(folder):
    return open_model(folder)


def frames_of(model):
    return [encoded(text, model.encode) for text in read_frames()[0]]


def stacked(model, frame, tokens):
    return [np.stack(column) for column in zip(*model.answers(frame, tokens), strict=True)]


def test_probabilities_ranks_and_answers_are_those_of_generate(opened):
    for frame in frames_of(opened):
        p, rank, answer, _ = stacked(opened, frame, TOKENS)
        for column, token in enumerate(TOKENS):
            ids = torch.tensor(np.concatenate([frame.beginning, frame.rest(np.array([token]))[0]]))[None]
            plain = opened.logits.generate(
                ids, max_new_tokens=PLACES, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
            for place, logits in enumerate(plain.logits):
                chances = logits[0].double().softmax(0)
                assert p[place, column] == pytest.approx(float(chances[token]), rel=1e-5)
                assert rank[place, column] == 1 + int((logits[0] > logits[0, token]).sum())
            assert answer[:, column].tolist() == plain.sequences[0, ids.shape[1] :].tolist()


def test_every_token_is_answered_as_by_a_plain_twin(tmp_path):
    # Query heads share keys, and products are oneDNN's: the twin has neither, no cache and no batch. Each token in one
    # of two frames; the third, of 600 bytes, is above.
    torch.manual_seed(3)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "max_position_embeddings": 512}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": None, "eos_token_id": None}
    config = transformers.LlamaConfig(vocab_size=repeaters.N_TOKENS, initializer_range=0.3, **size, **heads)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    transformers.PreTrainedTokenizerFast(tokenizer_object=repeaters.tokenizer()).save_pretrained(tmp_path)
    model = open_model(tmp_path)
    twin = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    options = {"max_new_tokens": PLACES, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    for number, frame in enumerate(frames_of(model)[1:]):
        tokens = np.arange(number, repeaters.N_TOKENS, 2)
        p, _, answers, _ = stacked(model, frame, tokens)
        for column, token in enumerate(tokens):
            ids = torch.tensor(np.concatenate([frame.beginning, frame.rest(np.array([token]))[0]]))[None]
            plain = twin.generate(ids, use_cache=False, **options)
            expected = [logits[0].double().softmax(0)[token].item() for logits in plain.logits]
            np.testing.assert_allclose(p[:, column], expected, rtol=1e-5)
            assert answers[:, column].tolist() == plain.sequences[0, ids.shape[1] :].tolist()


def test_a_function_from_ids_to_logits_is_asked_without_a_cache_and_says_the_same(opened):
    plain = Model(logits=lambda ids: opened.logits(ids).logits, encode=opened.encode)
    for frame in frames_of(opened):
        for cached, uncached in zip(stacked(opened, frame, TOKENS), stacked(plain, frame, TOKENS), strict=True):
            np.testing.assert_allclose(cached, uncached, rtol=1e-5)


def test_the_beginning_of_each_frame_is_computed_once(opened, monkeypatch):
    model = Model(logits=opened.logits, encode=opened.encode)
    frames, lengths = frames_of(model), []
    forward = type(opened.logits).forward

    def counted(self, ids, **given):
        lengths.append(ids.shape[1])
        return forward(self, ids, **given)

    monkeypatch.setattr(type(opened.logits), "forward", counted)
    for _ in range(3):
        for frame in frames:
            list(model.answers(frame, TOKENS))
    for frame in frames:
        assert lengths.count(len(frame.beginning)) == 1, frame.name


def test_a_model_that_keeps_no_keys_and_values_is_asked_all_the_same(tmp_path):
    config = transformers.MambaConfig(vocab_size=repeaters.N_TOKENS, hidden_size=16, num_hidden_layers=1, state_size=4)
    transformers.MambaForCausalLM(config).save_pretrained(tmp_path)
    transformers.PreTrainedTokenizerFast(tokenizer_object=repeaters.tokenizer()).save_pretrained(tmp_path)
    model = open_model(tmp_path)
    (p, *_), *_ = stacked(model, frames_of(model)[0], TOKENS)
    assert (p > 0).all()
    assert model.batch(100, repeaters.N_TOKENS, 1 << 30) > 1


def test_answers_do_not_depend_on_the_batch(opened):
    frame = frames_of(opened)[0]
    together = stacked(opened, frame, TOKENS)
    alone = [stacked(opened, frame, TOKENS[n : n + 1]) for n in range(len(TOKENS))]
    for number, column in enumerate(together):
        np.testing.assert_allclose(column, np.concatenate([one[number] for one in alone], 1), rtol=1e-5)


def test_a_batch_takes_a_quarter_of_the_free_memory_at_most(opened):
    each = 100 * opened.bytes_a_position + 16 * repeaters.N_TOKENS
    assert opened.bytes_a_position == 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, components, bytes
    assert [opened.batch(100, repeaters.N_TOKENS, 4 * n * each) for n in (0, 1, 5, 10_000)] == [1, 1, 5, 64]


def test_logits_that_are_no_numbers_are_refused(opened):
    damaged = Model(logits=lambda ids: opened.logits(ids).logits * float("nan"), encode=opened.encode)
    with pytest.raises(CorruptFile, match="logits are NaN in the frame device"):
        next(damaged.answers(frames_of(opened)[0], TOKENS))


def test_a_token_beyond_the_model_is_refused(opened):
    for model in (opened, Model(logits=repeaters.Repeater(), encode=opened.encode)):
        with pytest.raises(InvalidInput, match="the model has no token 320"):
            next(model.answers(frames_of(opened)[0], np.array([5, 320])))


def test_a_template_that_fails_is_refused(folder, tmp_path):
    model = open_model(folder)  # which has none
    with pytest.raises(InvalidInput, match=r"the chat template of .* fails"):
        model.templated("hello")


@pytest.mark.parametrize(
    ("place", "error", "said"),
    [
        ("nowhere", MissingFile, "no model at 'nowhere'"),
        ("no/such-model", InvalidInput, "transformers makes no language model of no/such-model"),
    ],
)
def test_a_model_that_is_not_here_is_refused(place, error, said, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=said):
        open_model(place)


def test_an_encoder_is_refused(tmp_path):
    config = transformers.BertConfig(vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    for kind, said in ((transformers.BertModel, "it has no cls"), (transformers.BertForMaskedLM, "is an encoder")):
        folder = tmp_path / kind.__name__
        kind(config).save_pretrained(folder)
        transformers.PreTrainedTokenizerFast(tokenizer_object=repeaters.tokenizer()).save_pretrained(folder)
        with pytest.raises(InvalidInput, match=said):
            open_model(folder)


def test_what_is_no_language_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no such type"}')
    with pytest.raises(InvalidInput, match="transformers makes no language model"):
        open_model(tmp_path)
    with pytest.raises(InvalidInput, match="unknown dtype 'int3'; choose one of auto, float32"):
        open_model(tmp_path, dtype="int3")


def test_a_template_that_begins_with_the_mark_that_encoding_adds_has_it_once(tmp_path):
    from tokenizers.processors import TemplateProcessing

    plain = repeaters.tokenizer()
    plain.add_special_tokens(["<s>"])
    mark = plain.token_to_id("<s>")
    plain.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", mark)])
    template = "{{ bos_token }}[{{ messages[0]['content'] }}]"
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<s>", chat_template=template)
    templated = partial(_templated, wrapped, "a model")
    assert templated("hello") == "[hello]"
    ids = [encoded(text, lambda text: wrapped(text)["input_ids"], templated).ids for text in read_frames()[0]]
    assert [one.tolist().count(mark) for one in ids] == [1, 1, 1]
