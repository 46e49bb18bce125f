"""Models that cannot be asked: the command says so in a sentence, with the exit codes of `docs/files.md`."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import repeaters  # noqa: E402
from tokenizers import AddedToken  # noqa: E402

pytestmark = pytest.mark.slow  # torch and transformers take seconds to import


def encoder(kind):
    def write(folder):
        size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        getattr(transformers, kind)(transformers.BertConfig(vocab_size=repeaters.N_TOKENS, **size)).save_pretrained(
            folder
        )
        transformers.PreTrainedTokenizerFast(tokenizer_object=repeaters.tokenizer()).save_pretrained(folder)

    return write


def with_a_tokenizer_of_another_vocabulary(folder):
    repeaters.saved(folder)
    other = repeaters.tokenizer()
    other.add_tokens([AddedToken(f"more{n}") for n in range(10)] + [AddedToken("device")])  # a word of the frames
    transformers.PreTrainedTokenizerFast(tokenizer_object=other).save_pretrained(folder)


def with_a_template_that_fails(folder):
    repeaters.saved(folder)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}")


def with_damaged_weights(folder):
    model = repeaters.language_model()
    with torch.no_grad():
        model.transformer.ln_f.weight[3] = float("nan")
    model.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=repeaters.tokenizer()).save_pretrained(folder)


@pytest.mark.parametrize(
    ("write", "options", "code", "says"),
    {
        "no head": (encoder("BertModel"), (), 2, ("is no language model: it has no cls.",)),
        "an encoder": (encoder("BertForMaskedLM"), (), 2, ("is an encoder (BertForMaskedLM)",)),
        "another vocabulary": (
            with_a_tokenizer_of_another_vocabulary,
            (),
            2,
            ("the model has no token 330: its vocabulary is another",),
        ),
        "a template that fails": (
            with_a_template_that_fails,
            ("--chat",),
            2,
            ("the chat template of", "roles must alternate"),
        ),
        "a short context": (
            lambda folder: repeaters.saved(folder, n_positions=64),
            (),
            2,
            ("the frame device has", "tokens, the model's context 64", "--frames"),
        ),
        "NaN": (with_damaged_weights, (), 4, ("the model's logits are NaN in the frame device",)),
    }.values(),
)
def test_a_model_that_cannot_be_asked_is_refused_in_a_sentence(write, options, code, says, cli, tmp_path):
    folder, out = tmp_path / "model", tmp_path / "run"
    write(folder)
    refused = cli("verify", folder, "--tokens", "65-70", "--out", out, *options)
    assert (refused.code, refused.out) == (code, "")
    said = refused.err.splitlines()[-1]
    assert said.startswith("darkvocab: ")
    for words in says:
        assert words in said
    assert not [*out.glob("records/*")]
